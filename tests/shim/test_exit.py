"""How a plain command ends: exact codes and signals, in exit.json and in the facts."""

import pytest

from tests.shim.house import House


@pytest.mark.parametrize("code", [0, 1, 7, 200, 255])
def test_the_exit_code_is_the_kernels(house: House, code: int) -> None:
    """`exit N` is recorded as N, on the disk and on the wire, and the shim leaves."""
    run = house.launch(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    record = run.exit()
    assert (record["exit_code"], record["signal"]) == (code, None)
    assert [fact["fact"] for fact in run.facts()] == ["spawned", "started", "exited"]
    told = run.fact("exited")
    assert {key: told[key] for key in record} == record
    assert (run.dir / "stdout.log").read_bytes() == b"out\n"
    assert (run.dir / "stderr.log").read_bytes() == b"err\n"
    assert record["swept"] is True
    run.leaves()
