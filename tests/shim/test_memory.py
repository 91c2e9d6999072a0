"""The memory of a live run."""

from pathlib import Path

from tests.harness.shim import ShimHarness

RUNS = 10
PSS_LIMIT_KB = 5 * 1024


def pss_kb(pid: int) -> int:
    """Return the proportional set size: private pages, and a share of the shared pages."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError("no Pss line")


def test_a_live_run_costs_at_most_five_megabytes(harness: ShimHarness) -> None:
    """With ten runs alive, a shim that has printed and frozen once has a PSS of 5 MB at most."""
    runs = [harness.launch(["sh", "-c", """echo '{"type": "step"}'; sleep 1000"""]) for _ in range(RUNS)]
    for run in runs:
        run.wait_for_output("step")
        run.control("pause", mode="freeze")
        run.fact("paused")
    sizes = [pss_kb(run.shim_pid) for run in runs]
    for run in runs:
        run.control("stop", grace_s=0)
    for run in runs:
        run.wait_until_tree_is_empty()
    assert sum(sizes) / RUNS <= PSS_LIMIT_KB, sizes
