"""run.telemetry of a file full of lines that are no records: each request reads a bounded part of it."""

import pytest

from mosaicd.rpc.segments import AttemptLog, Piece
from tests.rpc.serving import AT, Peer, Serving
from tests.rpc.test_files import pages, record


@pytest.mark.parametrize("since", [None, AT - 1])
@pytest.mark.parametrize(
    "junk", [b"junk\n" * 50_000, b"\n" * 250_000, record(1) * 5000, b"x" * 250_000 + b"\n"],
    ids=["without a seq", "empty", "with an old seq", "one long line"],
)  # fmt: skip
async def test_a_request_scans_a_bounded_part_of_junk(
    junk: bytes, since: float | None, serving: Serving, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request reads a bounded part of lines that are no records; the same request then continues, and the
    records behind the junk are returned."""
    limit_bytes, sizes = 50_000, []
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.SCAN_BYTES", limit_bytes)
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.READ_BYTES", 1000)
    monkeypatch.setattr("mosaicd.rpc.verbs.telemetry.RECORD_BYTES", 2000)
    plain_read = AttemptLog.read

    async def read(self: AttemptLog, offset: int, size: int) -> Piece:
        piece = await plain_read(self, offset, size)
        sizes.append(len(piece.data))
        return piece

    monkeypatch.setattr(AttemptLog, "read", read)
    run = await serving.execute(await serving.add())
    serving.file(run, "telemetry.jsonl").write_bytes(record(1) + junk + record(2))
    params, seqs = {"run_id": run.run_id, "cursor": 0, **({"since": since} if since else {})}, []
    for _ in range(2 * len(junk) // limit_bytes):
        sizes.clear()
        page = await peer.call("run.telemetry", params)
        seqs += [item["seq"] for item in page["records"]]
        params["cursor"] = page["cursor"]
        assert sum(sizes) < 2 * limit_bytes
        if page["eof"]:
            break
    assert (seqs, page["eof"]) == ([1, 2], True)


async def test_a_place_of_a_since_is_not_used_without_it(serving: Serving, peer: Peer) -> None:
    """A request with `since` that finds no record hides none from a later request without it."""
    run = await serving.execute(await serving.add())
    path = serving.file(run, "telemetry.jsonl")
    path.write_bytes(b"".join(record(seq) for seq in range(1, 10)) + b"junk\n" * 50_000)
    params = {"run_id": run.run_id, "since": AT + 1e6}
    assert (await peer.call("run.telemetry", params))["records"] == []
    assert len(await pages(peer, run)) == 9
