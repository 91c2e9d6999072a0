#!/usr/bin/env python3
"""Boot this machine's own systemd as PID 1 of new namespaces, over a temporary overlay of `/`.

    boot.py STATE_DIR --user NAME:UID [--share PATH]... [--hybrid]

Prints one JSON line, {"pid": PID 1 as seen from outside}, once the user's manager runs; then waits for EOF on
stdin and stops everything. So a test that holds the other end of the pipe leaks nothing, also when it is
killed with SIGKILL.

Without --hybrid the machine has control groups of version 2 only, and no controllers; with it, also
controllers of version 1, as this host has them.

Changes nothing outside of STATE_DIR and its control groups. Needs root, an overlay file system and cgroup2;
if one is missing, the exit code is 77. Note: the units of the host need no masking, because the machine boots
to its own target, which wants little more than the user's manager.
"""

import argparse
import ctypes
import json
import os
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

UNSUPPORTED = 77
BOOT_LIMIT_S = 30.0

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
#: sys_module, sys_rawio, sys_time, syslog: the machine must not change the clock, modules or log of the host.
DROPPED_CAPABILITIES = (16, 17, 25, 34)

#: The version-1 hierarchies of a hybrid machine: that of systemd, and controllers that need no set-up.
VERSION_1 = ("systemd", "memory", "pids", "cpu", "cpuacct", "freezer")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
#: Directories where the machine mounts its own file systems.
COVERED = frozenset(map(Path, ("/proc", "/sys", "/dev", "/run", "/tmp")))
TARGET = """[Unit]
Description=A machine with one user manager in it
Requires=sysinit.target dbus.service systemd-logind.service
Wants=user@{uid}.service
After=sysinit.target dbus.service systemd-logind.service user@{uid}.service
AllowIsolate=yes
"""

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """Call a libc function; raise OSError with its name and arguments unless it returns 0."""
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        shown = ", ".join(a.decode(errors="replace") if isinstance(a, bytes) else str(a) for a in arguments)
        raise OSError(number, f"{name}({shown}): {os.strerror(number)}")


def mount(source: str, target: Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    if not target.exists():
        target.mkdir(parents=True)
    arguments = (source.encode(), str(target).encode(), kind.encode())
    call("mount", *arguments, ctypes.c_ulong(flags), options.encode())


def bind(source: Path, target: Path, read_only: bool = False) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    mount(str(source), target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def is_on_root(path: Path) -> bool:
    """Return whether the overlay of `/` shows `path`, because no other file system is mounted above it."""
    above = [step for step in (path, *path.parents) if step != Path("/")]
    return not any(step.is_mount() or step in COVERED for step in above)


def cgroup2_root() -> Path:
    """Return the mount point of cgroup2 on this host."""
    for candidate in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (candidate / "cgroup.procs").exists() and (candidate / "cgroup.controllers").exists():
            return candidate
    sys.exit(UNSUPPORTED)


def cgroups(name: str, hybrid: bool) -> dict[str, Path]:
    """Return hierarchy -> the machine's group on this host."""
    groups = {"unified": cgroup2_root() / name}
    if hybrid:
        groups |= {kind: Path("/sys/fs/cgroup") / kind / name for kind in VERSION_1}
        if not all(group.parent.joinpath("cgroup.procs").exists() for group in groups.values()):
            sys.exit(UNSUPPORTED)
    return groups


def cgroup_mounts(root: Path, hierarchies: list[str]) -> None:
    """Mount the machine's private view of each hierarchy."""
    safe, top = MS_NOSUID | MS_NODEV | MS_NOEXEC, root / "sys/fs/cgroup"
    if hierarchies == ["unified"]:
        mount("cgroup2", top, "cgroup2", safe)
        return
    mount("tmpfs", top, "tmpfs", safe, "mode=755")
    for kind in hierarchies:
        if kind == "unified":
            mount("cgroup2", top / kind, "cgroup2", safe)
        else:
            mount("cgroup", top / kind, "cgroup", safe, "none,name=systemd" if kind == "systemd" else kind)


def api_mounts(root: Path, state: Path, hierarchies: list[str]) -> None:
    """Mount what PID 1 expects: proc, sys, dev, run, tmp and a private view of control groups."""
    safe = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", root / "proc", "proc", safe)
    bind(root / "proc/sys", root / "proc/sys", read_only=True)
    mount("sysfs", root / "sys", "sysfs", safe | MS_RDONLY)
    cgroup_mounts(root, hierarchies)
    dev = root / "dev"
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        bind(Path("/dev") / name, dev / name)
    (state / "console").touch()
    bind(state / "console", dev / "console")
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    for name, target in {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1",
                         "stderr": "fd/2"}.items():  # fmt: skip
        (dev / name).symlink_to(target)
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", root / "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    mount("tmpfs", root / "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def make_reachable(root: Path, path: Path) -> None:
    """Let all users enter the directories above `path`, for example an interpreter below a 0700 home."""
    for step in reversed((path, *path.parents)):
        inside = root / step.relative_to("/")
        mode = stat.S_IMODE(inside.stat().st_mode)
        if mode & 0o005 != 0o005 and not inside.is_mount():
            inside.chmod(mode | 0o055)


def furnish(root: Path, name: str, uid: int, shares: list[Path]) -> None:
    """Write the machine's files: a lingering user, a target to boot to, an identity."""
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n")
    with (root / "etc/group").open("a") as group:
        group.write(f"{name}:x:{uid}:\n")
    with (root / "etc/shadow").open("a") as shadow:
        shadow.write(f"{name}:*:19000:0:99999:7:::\n")
    home = root / "home" / name
    home.mkdir(mode=0o700, parents=True)
    os.chown(home, uid, uid)
    linger = root / "var/lib/systemd/linger"
    linger.mkdir(parents=True, exist_ok=True)
    (linger / name).touch()
    units = root / "run/systemd/system"
    units.mkdir(parents=True)
    (units / "machine.target").write_text(TARGET.format(uid=uid))
    (root / "etc/machine-id").unlink(missing_ok=True)
    (root / "etc/machine-id").write_text(os.urandom(16).hex() + "\n")
    (root / "etc/hostname").write_text("machine\n")
    for share in shares:
        if not is_on_root(share):
            bind(share, root / share.relative_to("/"), read_only=True)
        make_reachable(root, share)


def forked(work: Callable[[], None]) -> int:
    """Fork a child that calls `work` and then exits with 1; return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(1)
    return pid


def become_pid_1(state: Path, name: str, uid: int, shares: list[Path], hierarchies: list[str]) -> None:
    """Build the root of the machine, enter it, and execute systemd."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    mount("", Path("/"), flags=MS_REC | MS_PRIVATE)
    root, layers = state / "root", state / "layers"
    mount("tmpfs", layers, "tmpfs", 0, "mode=755")
    (layers / "upper").mkdir()
    (layers / "work").mkdir()
    mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work")
    api_mounts(root, state, hierarchies)
    furnish(root, name, uid, shares)
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "."], check=True)
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    mount("", Path("/"), flags=MS_REC | MS_SHARED)
    for capability in DROPPED_CAPABILITIES:
        call("prctl", PR_CAPBSET_DROP, capability)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    argv = ["systemd", "--system", "--unit=machine.target", "--show-status=no"]
    os.execve("/lib/systemd/systemd", argv, {"container": "drill", "PATH": path, "LANG": "C.UTF-8"})


def keep(state: Path, groups: dict[str, Path], name: str, uid: int, shares: list[Path], writer: int) -> None:
    """Run the keeper: join the control groups, leave the namespaces of the host, fork PID 1, and exit after
    it."""
    os.setsid()
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    for group in groups.values():
        (group / "cgroup.procs").write_text("0")  # before unshare: this group is the root of the namespace
    spaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    call("unshare", spaces)
    first = forked(lambda: become_pid_1(state, name, uid, shares, list(groups)))
    os.write(writer, f"{first}\n".encode())
    os.close(writer)
    _, status = os.waitpid(first, 0)
    os._exit(0 if os.WIFSIGNALED(status) else 1)


def innermost(pid: int) -> int:
    """Return the pid of the keeper's only child, as this process sees it."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def is_ended(pid: int) -> bool:
    """Return whether this child has ended; it is not reaped, so its pid is not reused."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def ticks(deadline: float) -> Iterator[None]:
    """Yield every 10 ms until the deadline has passed."""
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)


def wait_for_user_manager(first: int, keeper: int, uid: int) -> bool:
    """Wait until the user's manager answers; return False if PID 1 ends or the time limit passes."""
    private = Path(f"/proc/{first}/root/run/user/{uid}/systemd/private")
    for _ in ticks(time.monotonic() + BOOT_LIMIT_S):
        if is_ended(keeper):
            return False
        if private.exists():
            break
    enter = ["nsenter", f"--target={first}", "--all", "--root", "--wd"]
    command = [*enter, "systemctl", "is-active", "--quiet", f"user@{uid}.service"]
    tries = ticks(time.monotonic() + BOOT_LIMIT_S)
    return any(subprocess.run(command, check=False).returncode == 0 for _ in tries)


def remove_cgroup(cgroup: Path) -> None:
    """Remove a tree of control groups as its processes end; print an error if it stays."""
    for _ in ticks(time.monotonic() + 20):
        for folder, _, _ in os.walk(cgroup, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue  # a process of the group is not reaped yet
        if not cgroup.exists():
            return
    print(f"boot: {cgroup} is still populated", file=sys.stderr)


def send_back(keeper: int, groups: dict[str, Path]) -> None:
    """Move the keeper into the groups of this process."""
    places: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        places |= {(kind or "unified").removeprefix("name="): path for kind in kinds.split(",")}
    for kind, group in groups.items():
        home = group.parent / places[kind].lstrip("/")
        (home / "cgroup.procs").write_text(str(keeper))


def run(state: Path, name: str, uid: int, shares: list[Path], hybrid: bool) -> int:
    """Boot the machine and wait for EOF on stdin; return the exit status."""
    groups = cgroups(f"machine-{os.getpid()}", hybrid)
    for group in groups.values():
        group.mkdir()
    reader, writer = os.pipe()
    keeper = forked(lambda: keep(state, groups, name, uid, shares, writer))
    os.close(writer)
    booted = False
    try:
        if os.read(reader, 32):
            first = innermost(keeper)
            # In the machine's groups the keeper would be a process without a pid.
            send_back(keeper, groups)
            booted = wait_for_user_manager(first, keeper, uid)
        if booted:
            print(json.dumps({"pid": first}), flush=True)
            sys.stdin.buffer.read()
        else:
            print((state / "console").read_text(errors="replace")[-4000:], file=sys.stderr)
    finally:
        os.kill(keeper, signal.SIGKILL)  # this kills PID 1, and with it all processes of the machine
        os.waitpid(keeper, 0)
        for group in groups.values():
            remove_cgroup(group)
    return 0 if booted else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("state", type=Path)
    parser.add_argument("--user", required=True, metavar="NAME:UID")
    parser.add_argument("--share", type=Path, action="append", default=[], metavar="PATH")
    parser.add_argument("--hybrid", action="store_true")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only EOF on stdin stops the machine
    name, _, uid = options.user.partition(":")
    options.state.mkdir(parents=True, exist_ok=True)
    shares = [share.resolve() for share in options.share]
    return run(options.state.resolve(), name, int(uid), shares, options.hybrid)


if __name__ == "__main__":
    sys.exit(main())
