"""Memory limits, the evidence of a kill by the kernel, and the count of processes."""

import sys

from tests.containment.groups import run_cgroups_of
from tests.harness.shim import ShimHarness

MIB = 1 << 20
#: Allocates the given MiB, then prints `ate`.
EAT = "import sys; x = bytearray(int(sys.argv[1]) << 20); x[::4096] = b'1' * len(x[::4096]); print('ate')"
EATER = (sys.executable, "-c", EAT)


def test_a_kill_at_the_memory_limit_is_oom(harness: ShimHarness, memory: str) -> None:
    """A kill at the memory limit is the fault `oom`, with the limit, the peak and the number of victims."""
    run = harness.launch([*EATER, "200"], containment={"memory_bytes": 64 * MIB})
    record = run.exit()
    assert run.json("started.json")["limits"]["memory_bytes"] == 64 * MIB
    assert (record["fault"], record["signal"]) == ("oom", 9)
    assert record["oom"]["limit_bytes"] == 64 * MIB
    assert record["oom"]["victims"] == 1
    assert 60 * MIB < record["oom"]["peak_bytes"] <= 64 * MIB
    assert "over its memory limit of 64 MiB" in record["error"]
    run.wait_until_shim_exits()


def test_a_run_below_its_memory_limit_has_no_fault(harness: ShimHarness, memory: str) -> None:
    """A run below its memory limit ends without fault and without evidence."""
    run = harness.launch([*EATER, "20"], containment={"memory_bytes": 128 * MIB})
    record = run.exit()
    assert (record["fault"], record["exit_code"], record["oom"]) == (None, 0, None)
    run.wait_until_shim_exits()


def test_a_leader_that_survives_an_oom_kill_succeeds(harness: ShimHarness, memory: str) -> None:
    """If the leader survives the kill of a child and exits with 0, the run succeeds; the record has the
    victim."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EAT!r}, '200']); print('coped')"
    run = harness.launch([sys.executable, "-c", code], containment={"memory_bytes": 96 * MIB})
    record = run.exit()
    assert (record["exit_code"], record["fault"], record["oom"]["victims"]) == (0, None, 1)
    run.wait_until_shim_exits()


def test_a_leader_that_fails_after_an_oom_kill_is_oom(harness: ShimHarness, memory: str) -> None:
    """If the leader fails after the kill of a child, the fault is `oom`, not the exit code."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {EAT!r}, '200'], check=True)"
    run = harness.launch([sys.executable, "-c", code], containment={"memory_bytes": 96 * MIB})
    record = run.exit()
    assert (record["exit_code"], record["fault"]) == (1, "oom")
    run.wait_until_shim_exits()


def test_the_memory_limit_does_not_include_the_shim(harness: ShimHarness, memory: str) -> None:
    """Many small processes above the limit are killed; the shim is not, and records the end."""
    script = "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        x = bytearray(8 << 20)\n"
    script += "        x[::4096] = b'1' * len(x[::4096])\n        time.sleep(1000)\n"
    script += "while True:\n    os.wait()\n    print('lost one', flush=True)\n"
    run = harness.launch([sys.executable, "-c", script], containment={"memory_bytes": 64 * MIB})
    run.wait_for_output("lost one")
    assert not run.has_shim_exited()
    run.control("stop", grace_s=0)
    record = run.exit()
    assert record["stop"]["kind"] == "by_user" and record["fault"] is None  # a stop has precedence
    assert record["oom"]["victims"] >= 1
    run.wait_until_tree_is_empty()
    harness.peer.until(lambda: not run_cgroups_of(run.run_id), shown=lambda: run_cgroups_of(run.run_id))
