"""Files that a run leaves in its temporary directory and in /dev/shm."""

import os
import signal
from pathlib import Path

from mosaicd.protocol.rundir import temporary_paths
from tests.harness.shim import ShimHarness

#: The longest path that Ray appends to a temporary directory for a socket.
RAY_SUFFIX_BYTES = len("/ray/session_2026-11-22_00-36-51_123456_4194304/sockets/plasma_store")
SOCKET_PATH_BYTES = 107


def test_each_run_has_a_private_temporary_directory(harness: ShimHarness) -> None:
    """TMPDIR is private, short enough for the path of a socket, and removed with its content at the end."""
    code = "cd $TMPDIR; mkdir -p a/b; touch a/b/c; ln -s /etc outside; stat -c %a .; pwd; chmod 0 a/b"
    run = harness.launch(["sh", "-c", code])
    run.exit()
    mode, path = (run.dir / "stdout.log").read_text().split()
    assert mode == "700"
    assert len(path) + RAY_SUFFIX_BYTES <= SOCKET_PATH_BYTES
    run.wait_until_shim_exits()
    assert not Path(path).exists()
    assert Path("/etc/passwd").exists()
    assert run.json("leftovers.json")["temporary"]["files"] == 2


def test_a_deep_temporary_directory(harness: ShimHarness) -> None:
    """A temporary directory is removed, however deep its tree is."""
    code = "import os; os.chdir(os.environ['TMPDIR']); [(os.mkdir('d'), os.chdir('d')) for _ in range(2000)]"
    run = harness.python(f"import os; print(os.environ['TMPDIR']); {code}")
    run.exit()
    path = Path((run.dir / "stdout.log").read_text().strip())
    run.wait_until_shim_exits()
    assert not path.exists()
    assert not run.has("leftovers.json")


def test_a_run_without_leftovers_has_no_record_of_them(harness: ShimHarness) -> None:
    """A run that leaves no file has no leftovers.json."""
    run = harness.launch(["true"])
    run.exit()
    run.wait_until_shim_exits()
    assert not run.has("leftovers.json")


def test_a_tmpdir_from_the_submit_is_kept(harness: ShimHarness, tmp_path: Path) -> None:
    """If the submit sets TMPDIR, its files are kept."""
    run = harness.launch(["sh", "-c", "touch $TMPDIR/kept"], environment={"TMPDIR": str(tmp_path)})
    run.exit()
    run.wait_until_shim_exits()
    assert (tmp_path / "kept").exists()


def test_a_taken_name_of_a_temporary_directory_is_untouched(harness: ShimHarness) -> None:
    """If the short name exists, TMPDIR has another short name, and the existing entry is unchanged."""
    run = harness.make(["sh", "-c", "echo $TMPDIR; touch $TMPDIR/x"])
    taken = Path(f"/tmp/mosaic-{run.run_id[-10:]}-1")
    taken.symlink_to(harness.root)
    try:
        harness.send(run)
        run.exit()
        run.wait_until_shim_exits()
        assert (run.dir / "stdout.log").read_text().strip() == f"{taken}-2"
        assert not Path(f"{taken}-2").exists()
        assert taken.is_symlink() and harness.root.exists()
    finally:
        taken.unlink()


def test_the_last_resort_is_in_the_attempt_directory(harness: ShimHarness) -> None:
    """If all short names exist, TMPDIR is in the attempt directory."""
    run = harness.make(["sh", "-c", "echo $TMPDIR; touch $TMPDIR/x"])
    short = [Path(path) for path in temporary_paths(run.run_id, 1)]
    for path in short:
        path.symlink_to(harness.root)
    try:
        harness.send(run)
        run.exit()
        run.wait_until_shim_exits()
        assert (run.dir / "stdout.log").read_text().strip() == str(run.dir / "tmp")
        assert not (run.dir / "tmp").exists()
    finally:
        for path in short:
            path.unlink()


def test_leftover_shared_memory_is_reported(harness: ShimHarness) -> None:
    """leftovers.json has each file that a run left in /dev/shm, but no file that a live process has open."""
    leftover, used = (Path(f"/dev/shm/drill-{os.getpid()}-{name}") for name in ("left", "used"))
    run = harness.launch(
        ["sh", "-c", f"head -c 5000 /dev/zero > {leftover}; echo x > {used}; read go < gate"]
    )
    gate = harness.gate()
    try:
        harness.peer.until(lambda: used.exists() and used.stat().st_size == 2)
        with used.open():
            gate.open()
            run.exit()
            run.wait_until_shim_exits()
        named = run.json("leftovers.json")["shared_memory"]
        assert {"path": str(leftover), "bytes": 5000} in named
        assert str(used) not in [entry["path"] for entry in named]
        assert leftover.exists()
    finally:
        leftover.unlink(missing_ok=True)
        used.unlink(missing_ok=True)


def test_the_temporary_directory_of_a_lost_shim_is_removed(harness: ShimHarness) -> None:
    """If a shim is lost, its temporary directory is removed by the teardown, or by the launcher if there is
    no process."""
    for has_tree in (True, False):
        run = harness.launch(["sh", "-c", "echo $TMPDIR; exec sleep 1000"])
        run.wait_for_output("/")
        path = Path((run.dir / "stdout.log").read_text().strip())
        harness.signal(run.shim_pid, signal.SIGKILL)
        run.wait_until_shim_exits()
        if has_tree:
            harness.teardown(run)
        else:
            harness.signal(run.json("started.json")["pid"], signal.SIGKILL)
            harness.peer.until(lambda: harness.is_empty(run)["empty"])  # noqa: B023 -- called in the same iteration
        harness.peer.until(lambda: not path.exists(), shown=lambda: path)  # noqa: B023
