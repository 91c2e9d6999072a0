"""The place of the control groups of runs: the launcher finds or requests it once, before the first order.

Under systemd the launcher requests a scope with delegation, and all its runs live there.  The group of the
service cannot be used: systemd before 254 cannot start a main process in a group whose controllers are
enabled for its children, so a service with limits could not be restarted.  Also, a `stop` of the service does
not touch runs in another scope.  The scope ends with its last process.
Elsewhere (in a container, or as root) runs live below the group of the launcher, if the launcher may write
there.  Note: it is no error if there is no place.  Process groups then hold the runs.
"""

import os
import re
import subprocess
import time

from mosaicd.shim import cgroup
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import CgroupRoot

AUTO, CGROUP, PROCESS_GROUP = MODES = ("auto", "cgroup", "process-group")

PARENT_NAME = "mosaicd"
_SCOPE = re.compile(r"mosaicd-runs-.*\.scope")
_UNIT = "mosaicd.service"  # which has Delegate=yes
_SYSTEMD_DIR = "/run/systemd/system"
_LAUNCHER, _DAEMON = "launcher", "mosaicd-daemon"
_CONTROLLERS = frozenset({"memory", "pids", "cpu"})
_BUSCTL_LIMIT_S = 5.0
_MOVE_LIMIT_S = 2.0
_BUSCTL = "busctl"
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_SEARCH_LIMIT = 4096  # directories in which groups of earlier launchers are searched


def prepare(mode: str) -> CgroupRoot:
    """Return where run control groups are made in this mode; this may move the launcher to another group."""
    top = cgroup.own_hierarchies().get(V2)
    if mode == PROCESS_GROUP:
        return CgroupRoot()
    parent, can_enable = _v2_parent(top)
    own = cgroup.own_hierarchies()  # again: a scope may have moved this process
    parents = _v1_parents(own)
    controllers: frozenset[str] = frozenset()
    if parent is not None and _has_v2_features(parent):
        parents[V2] = parent
        available = frozenset((cgroup.read(parent, "cgroup.controllers") or "").split())
        controllers = cgroup.enable(parent, available & _CONTROLLERS) if can_enable else controllers
    return CgroupRoot(parents, own, controllers, _earlier_parents(parent or top))


def _v2_parent(top: str | None) -> tuple[str | None, bool]:
    """Return the parent for version 2, or None, and whether controllers may be enabled for its children."""
    if os.path.isdir(_SYSTEMD_DIR) and _try_join_scope():
        return _enter_leaf(cgroup.own_hierarchies().get(V2)), True
    if top is None or not _is_writable(top):
        return None, False
    if not os.path.isdir(_SYSTEMD_DIR):
        return _own_parent(top), True
    return (_try_make(f"{top}/{PARENT_NAME}"), False) if _is_delegated(top) else (None, False)


def _is_writable(directory: str) -> bool:
    return os.access(directory, os.W_OK) and cgroup.can_write(directory, cgroup.PROCS)


def _is_delegated(directory: str) -> bool:
    """Return whether systemd has delegated the directory: it is mosaicd.service or has the attribute."""
    if os.path.basename(directory) == _UNIT:
        return True
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(directory, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _has_v2_features(directory: str) -> bool:
    """Return whether groups below can be frozen and watched (Linux 5.2 and newer)."""
    probe = f"{directory}/probe-{os.getpid()}"
    try:
        os.mkdir(probe)
    except OSError:
        return False
    try:
        return cgroup.can_write(probe, "cgroup.freeze") and cgroup.read(probe, "cgroup.events") is not None
    finally:
        cgroup.remove(probe)


def _own_parent(top: str) -> str | None:
    """Make the parent below the launcher's own group; daemon and launcher leave that group if needed."""
    if os.path.basename(top) == _DAEMON:  # an earlier launcher moved the daemon here
        top = os.path.dirname(top)
    available = frozenset((cgroup.read(top, "cgroup.controllers") or "").split()) & _CONTROLLERS
    if cgroup.enable(top, available) != available:
        # A group with processes cannot enable controllers for its children, so these processes leave it.
        members = cgroup.pids_here(top)
        if members <= {os.getpid(), os.getppid()} and (leaf := _try_make(f"{top}/{_DAEMON}")):
            for pid in members:
                cgroup.try_write(leaf, cgroup.PROCS, str(pid))
        cgroup.enable(top, available)
    return _try_make(f"{top}/{PARENT_NAME}")


def _try_make(parent: str) -> str | None:
    try:
        os.makedirs(parent, exist_ok=True)
    except OSError:
        return None
    return parent


def _v1_parents(own: dict[str, str]) -> dict[str, str]:
    parents = {}
    for name, directory in own.items():
        parent = _try_make(f"{directory}/{PARENT_NAME}") if name != V2 and _is_writable(directory) else None
        if parent is not None:
            parents[name] = parent
    return parents


def _enter_leaf(scope: str | None) -> str | None:
    """Move into a leaf of the scope, so that the scope can enable its controllers; return the scope."""
    if scope is None:
        return None
    try:
        os.makedirs(f"{scope}/{_LAUNCHER}", exist_ok=True)
        cgroup.write(f"{scope}/{_LAUNCHER}", cgroup.PROCS, "0")
    except OSError:
        pass  # the scope then has no controllers
    return scope


def _try_join_scope() -> bool:
    """Ask systemd to put this process into a new scope; return whether it did."""
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
        result = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, timeout=_BUSCTL_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and _wait_until_in(name)


def _wait_until_in(scope: str) -> bool:
    """Wait until this process is in the scope: systemd's reply only means that the job is queued."""
    deadline = time.clock_gettime(time.CLOCK_MONOTONIC) + _MOVE_LIMIT_S
    while f"/{scope}" not in _membership():
        if time.clock_gettime(time.CLOCK_MONOTONIC) > deadline:
            return False
        time.sleep(0.005)
    return True


def _membership() -> str:
    with open("/proc/self/cgroup") as file:
        return file.read()


def _earlier_parents(current: str | None) -> tuple[str, ...]:
    """Return directories in which earlier launchers of this user may have left run control groups."""
    if current is None:
        return ()
    top = current
    while cgroup.read(os.path.dirname(top), cgroup.PROCS) is not None:
        top = os.path.dirname(top)
    result = []
    for count, directory in enumerate(cgroup.tree(top)):
        if count == _SEARCH_LIMIT:
            break
        name = os.path.basename(directory)
        if directory != current and (name == PARENT_NAME or _SCOPE.fullmatch(name)) and _is_own(directory):
            result.append(directory)
    return tuple(result)


def _is_own(directory: str) -> bool:
    try:
        return os.stat(directory).st_uid == os.geteuid()
    except OSError:
        return False
