"""Memory that is limited and the evidence of who was killed for it; processes that are counted."""

import sys

from tests.containment.groups import run_cgroups_of
from tests.harness.shim import ShimHarness

MIB = 1 << 20
#: Touches so many MiB, then says so.
EAT = "import sys; x = bytearray(int(sys.argv[1]) << 20); x[::4096] = b'1' * len(x[::4096]); print('ate')"
EATER = (sys.executable, "-c", EAT)


def test_too_much_memory_is_told_as_such(harness: ShimHarness, memory: str) -> None:
    """The kernel's kill is the fault `oom`, with the limit, the peak and how many were killed."""
    run = harness.launch([*EATER, "200"], containment={"memory_bytes": 64 * MIB})
    record = run.exit()
    assert run.json("started.json")["limits"]["memory_bytes"] == 64 * MIB
    assert (record["fault"], record["signal"]) == ("oom", 9)
    assert record["oom"]["limit_bytes"] == 64 * MIB
    assert record["oom"]["victims"] == 1
    assert 60 * MIB < record["oom"]["peak_bytes"] <= 64 * MIB
    assert "over its memory limit of 64 MiB" in record["error"]
    run.leaves()


def test_enough_memory_is_no_fault(harness: ShimHarness, memory: str) -> None:
    """A run below its limit ends as it likes, and nothing is said of memory."""
    run = harness.launch([*EATER, "20"], containment={"memory_bytes": 128 * MIB})
    record = run.exit()
    assert (record["fault"], record["exit_code"], record["oom"]) == (None, 0, None)
    run.leaves()


def test_a_helper_that_is_killed_breaks_only_what_breaks_of_it(harness: ShimHarness, memory: str) -> None:
    """A leader that copes with the loss of a child ends well; the victim is on record all the same."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EAT!r}, '200']); print('coped')"
    run = harness.launch([sys.executable, "-c", code], containment={"memory_bytes": 96 * MIB})
    record = run.exit()
    assert (record["exit_code"], record["fault"], record["oom"]["victims"]) == (0, None, 1)
    run.leaves()


def test_a_leader_that_fails_over_its_helper(harness: ShimHarness, memory: str) -> None:
    """A non-zero exit after such a kill is laid to the memory, not to the code."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EAT!r}, '200'], check=True)"
    run = harness.launch([sys.executable, "-c", code], containment={"memory_bytes": 96 * MIB})
    record = run.exit()
    assert (record["exit_code"], record["fault"]) == (1, "oom")
    run.leaves()


def test_the_shim_is_no_part_of_the_limit(harness: ShimHarness, memory: str) -> None:
    """A swarm of small processes over the limit loses its own; the shim lives and records the end."""
    script = "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        x = bytearray(8 << 20)\n"
    script += "        x[::4096] = b'1' * len(x[::4096])\n        time.sleep(1000)\n"
    script += "while True:\n    os.wait()\n    print('lost one', flush=True)\n"
    run = harness.launch([sys.executable, "-c", script], containment={"memory_bytes": 64 * MIB})
    run.says("lost one")
    assert not run.shim_is_gone()
    run.control("stop", grace_s=0)
    record = run.exit()
    assert record["stop"]["kind"] == "by_user" and record["fault"] is None  # a stop comes first
    assert record["oom"]["victims"] >= 1
    run.ends_empty()
    harness.peer.until(lambda: not run_cgroups_of(run.run_id), shown=lambda: run_cgroups_of(run.run_id))
