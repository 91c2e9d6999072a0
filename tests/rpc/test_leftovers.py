"""run.leftovers: the content of leftovers.json, which the run's owner can change."""

import json
import os
from typing import Any

import pytest

from tests.rpc.serving import Peer, Serving

NOTHING = {"files": 0, "bytes": 0, "failed": 0}


async def test_a_run_without_leftovers_has_the_defaults(serving: Serving, peer: Peer) -> None:
    """Without leftovers.json, the reply has empty lists and zeros."""
    run = await serving.add()
    reply = await peer.call("run.leftovers", {"run_id": run.run_id})
    assert reply == {
        "run_id": run.run_id, "attempt": 0, "processes": [], "temporary": NOTHING, "shared_memory": [],
        "shared_memory_files": 0, "shared_memory_bytes": 0, "removed_shared_memory": NOTHING, "at": None,
    }  # fmt: skip


async def test_values_of_wrong_types_are_dropped(serving: Serving, peer: Peer) -> None:
    """A value of a wrong type and entries above the limit never reach a client."""
    run = await serving.execute(await serving.add())
    content: dict[str, Any] = {
        "run_id": "other", "attempt": 99, "temporary": [], "shared_memory": {"a": 1}, "at": "now",
        "processes": [{"pid": -1, "command": ["x"]}, 7, {"pid": 7, "command": "\ud800" + "y" * 5000}] * 60,
    }  # fmt: skip
    serving.file(run, "leftovers.json").write_text(json.dumps(content))
    reply = await peer.call("run.leftovers", {"run_id": run.run_id})
    assert (reply["run_id"], reply["attempt"], reply["at"]) == (run.run_id, 1, None)
    assert (reply["temporary"], reply["shared_memory"]) == (NOTHING, [])
    assert reply["processes"][:2] == [{"pid": None, "command": None}, {"pid": 7, "command": "?" + "y" * 999}]
    assert len(reply["processes"]) < 100


@pytest.mark.parametrize("trap", ["link", "fifo", "text", "large"])
async def test_an_unusable_file_is_refused(trap: str, serving: Serving, peer: Peer) -> None:
    """A link, a pipe, a file that is not JSON, and a file that is too large are refused without blocking."""
    run = await serving.execute(await serving.add())
    path = serving.file(run, "leftovers.json")
    if trap == "link":
        path.symlink_to("/etc/passwd")
    elif trap == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("{" if trap == "text" else json.dumps({"a": "b" * (2 << 20)}))
    error = await peer.call_refused("run.leftovers", {"run_id": run.run_id})
    assert error["data"]["name"] == "unavailable"
