"""Where control groups for runs are made: found, or asked for, once, before the first order.

Under systemd the launcher asks the manager for a scope of its own with delegation, and all its runs live
there: not in the service's group, because a manager before 254 cannot start a main process in a group
whose controllers are handed on, so with limits the service could never be restarted.  A scope also keeps a
`stop` of the service from seeing the runs at all.  It ends by itself with the last process in it.
Elsewhere (in a container, or as root) runs live below the launcher's own group, where it may write.
A reader might think that finding none is an error: it is not, process groups then have to do.
"""

import os
import re
import subprocess
import time

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import Site

AUTO, CGROUP, PROCESS_GROUP = MODES = ("auto", "cgroup", "process-group")

HOME = "mosaicd"
_SCOPE = re.compile(r"mosaicd-runs-.*\.scope")
_UNIT = "mosaicd.service"  # which has Delegate=yes
_BOOTED = "/run/systemd/system"
_LAUNCHER, _DAEMON = "launcher", "mosaicd-daemon"
_CONTROLLERS = frozenset({"memory", "pids", "cpu"})
_ASK_LIMIT_S = 5.0
_MOVE_LIMIT_S = 2.0
_BUSCTL = "busctl"
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_OLD_LIMIT = 4096  # directories looked through for what earlier launchers left


def prepare(mode: str) -> Site:
    """Return where cells are made in this mode; the launcher may be in another control group afterwards."""
    top = cgroup.own_hierarchies().get(V2)
    if mode == PROCESS_GROUP:
        return Site()
    home, hands_on = _home(top)
    own = cgroup.own_hierarchies()  # a scope may have moved us
    homes = _v1_homes(own)
    controllers: frozenset[str] = frozenset()
    if home is not None and _has_core(home):
        homes[V2] = home
        available = frozenset((cgroup.read(home, "cgroup.controllers") or "").split())
        controllers = cgroup.enable(home, available & _CONTROLLERS) if hands_on else controllers
    return Site(homes, own, controllers, _old(home or top))


def _home(top: str | None) -> tuple[str | None, bool]:
    """Return the directory for cells of version 2, and whether controllers may be handed on to it."""
    if os.path.isdir(_BOOTED) and _is_in_scope():
        return _leaf(cgroup.own_hierarchies().get(V2)), True
    if top is None or not _is_writable(top):
        return None, False
    if not os.path.isdir(_BOOTED):
        return _own_home(top), True
    return (_made(f"{top}/{HOME}"), False) if _is_delegated(top) else (None, False)


def _is_writable(directory: str) -> bool:
    return os.access(directory, os.W_OK) and cgroup.has(directory, cgroup.PROCS)


def _is_delegated(directory: str) -> bool:
    """Whether the directory is ours: our own unit says so, or the manager, where it leaves a mark."""
    if os.path.basename(directory) == _UNIT:
        return True
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _has_core(directory: str) -> bool:
    """Whether groups below can be frozen and watched (not so before Linux 5.2)."""
    probe = f"{directory}/probe-{os.getpid()}"
    try:
        os.mkdir(probe)
    except OSError:
        return False
    try:
        return cgroup.has(probe, "cgroup.freeze") and cgroup.read(probe, "cgroup.events") is not None
    finally:
        cgroup.remove(probe)


def _own_home(top: str) -> str | None:
    """Make the directory for cells below the launcher's own group, out of the way of daemon and launcher."""
    if os.path.basename(top) == _DAEMON:  # an earlier launcher moved the daemon, and so us
        top = os.path.dirname(top)
    available = frozenset((cgroup.read(top, "cgroup.controllers") or "").split()) & _CONTROLLERS
    if cgroup.enable(top, available) != available:
        # A group with processes of its own hands nothing on; where they are ours alone, they make room.
        members = cgroup.pids_here(top)
        if members <= {os.getpid(), os.getppid()} and (leaf := _made(f"{top}/{_DAEMON}")):
            for pid in members:
                cgroup.is_written(leaf, cgroup.PROCS, str(pid))
        cgroup.enable(top, available)
    return _made(f"{top}/{HOME}")


def _made(home: str) -> str | None:
    try:
        os.makedirs(home, exist_ok=True)
    except OSError:
        return None
    return home


def _v1_homes(own: dict[str, str]) -> dict[str, str]:
    homes = {}
    for name, directory in own.items():
        home = _made(f"{directory}/{HOME}") if name != V2 and _is_writable(directory) else None
        if home is not None:
            homes[name] = home
    return homes


def _leaf(scope: str | None) -> str | None:
    """Leave the scope's own group for a leaf of it, so that its controllers can be handed on."""
    if scope is None:
        return None
    try:
        os.makedirs(f"{scope}/{_LAUNCHER}", exist_ok=True)
        cgroup.write(f"{scope}/{_LAUNCHER}", cgroup.PROCS, "0")
    except OSError:
        pass  # then without controllers
    return scope


def _is_in_scope() -> bool:
    """Have the manager put this process into a new scope; whether it did."""
    text = _membership()
    is_users = os.getuid() != 0 or f"/user@{os.getuid()}.service/" in text
    name = f"mosaicd-runs-{os.getpid()}-{os.urandom(3).hex()}.scope"
    properties = {
        "Description": ("s", "Runs of mosaicd"), "PIDs": ("au", "1", str(os.getpid())),
        "Delegate": ("b", "true"), "CollectMode": ("s", "inactive-or-failed"),
        "TasksMax": ("t", str(2**64 - 1)),
    }  # fmt: skip
    words = [word for key, value in properties.items() for word in (key, *value)]
    argv = [
        _BUSCTL, "--user" if is_users else "--system", "--quiet", "call", *_MANAGER, "StartTransientUnit",
        "ssa(sv)a(sa(sv))", name, "fail", str(len(properties)), *words, "0",
    ]  # fmt: skip
    environment = {"PATH": "/usr/bin:/bin"}
    if is_users:
        environment["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    try:
        asked = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=_ASK_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and _has_moved(name)


def _has_moved(scope: str) -> bool:
    """Wait until this process is in the scope: the answer means that the job was queued."""
    deadline = time.clock_gettime(time.CLOCK_MONOTONIC) + _MOVE_LIMIT_S
    while f"/{scope}" not in _membership():
        if time.clock_gettime(time.CLOCK_MONOTONIC) > deadline:
            return False
        time.sleep(0.005)
    return True


def _membership() -> str:
    with open("/proc/self/cgroup") as file:
        return file.read()


def _old(near: str | None) -> tuple[str, ...]:
    """Return directories where earlier launchers of this user may have left cells."""
    if near is None:
        return ()
    top = near
    while cgroup.read(os.path.dirname(top), cgroup.PROCS) is not None:
        top = os.path.dirname(top)
    found = []
    for count, directory in enumerate(cgroup.tree(top)):
        if count == _OLD_LIMIT:
            break
        name = os.path.basename(directory)
        if directory != near and (name == HOME or _SCOPE.fullmatch(name)) and _is_mine(directory):
            found.append(directory)
    return tuple(found)


def _is_mine(directory: str) -> bool:
    try:
        return os.stat(directory).st_uid == os.geteuid()
    except OSError:
        return False
