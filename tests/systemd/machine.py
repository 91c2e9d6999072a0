"""A booted machine with one user in it, and the user's view of mosaicd there.

`Machine` owns the boot process and its pipe; `UserService` owns one installation of the units for one
test.  Commands run inside the machine's namespaces, as its user unless `root` is asked for.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harness.places import ROOT
from tests.harness.waiting import wait_until

USER, UID = "drill", 4242
HOME = f"/home/{USER}"
RUNTIME = f"/run/user/{UID}"
BOOT = Path(__file__).with_name("boot.py")
PATH = "/usr/local/bin:/usr/bin:/bin"
UNSUPPORTED = 77


class Machine:
    """A running systemd; `close` (or the death of this process) takes it down."""

    def __init__(self, state: Path, hybrid: bool = False) -> None:
        shares = {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
        argv = [sys.executable, str(BOOT), str(state), "--user", f"{USER}:{UID}"]
        for share in sorted(shares):
            argv += ["--share", str(share)]
        if hybrid:
            argv.append("--hybrid")
        pipe = subprocess.PIPE
        self.boot = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        assert self.boot.stdout
        line = self.boot.stdout.readline()
        self.is_up = bool(line)
        self.pid = json.loads(line)["pid"] if line else 0

    def why_not(self) -> tuple[int, str]:
        """The exit status and the complaint of a machine that did not boot."""
        _, complaint = self.boot.communicate()
        return self.boot.returncode, complaint.decode(errors="replace")

    def close(self) -> None:
        assert self.boot.stdin
        self.boot.stdin.close()
        self.boot.wait(timeout=60)
        for stream in (self.boot.stdout, self.boot.stderr):
            assert stream
            stream.close()

    @property
    def root(self) -> Path:
        """The machine's `/` as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def argv(self, command: Sequence[str], root: bool = False, **environment: str) -> list[str]:
        """The command line that runs `command` inside."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd"]
        identity = [] if root else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups"]
        mine = {"HOME": HOME, "USER": USER, "XDG_RUNTIME_DIR": RUNTIME}
        given = {"PATH": PATH, "LANG": "C.UTF-8", **({"HOME": "/root"} if root else mine), **environment}
        return [*enter, *identity, "env", "-i", *(f"{k}={v}" for k, v in given.items()), *command]

    def run(
        self, *command: str, root: bool = False, check: bool = True, within_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; a failure shows what it said."""
        done = subprocess.run(
            self.argv(command, root), capture_output=True, text=True, timeout=within_s, check=False
        )
        if check:
            assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def outer_pid(self, inner: int) -> int:
        """The pid outside of the process that is `inner` inside."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
                space = os.readlink(status.parent / "ns/pid")
            except OSError:
                continue
            if space != os.readlink(f"/proc/{self.pid}/ns/pid"):
                continue
            numbers = next(line for line in text.splitlines() if line.startswith("NSpid:")).split()[1:]
            if int(numbers[-1]) == inner:
                return int(status.parent.name)
        raise AssertionError(f"no process {inner} inside the machine")


class UserService:
    """mosaicd as the machine's user has it, from `make install-user` to an empty machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.python = sys.executable
        self.installer = str(ROOT / "packaging/systemd/install_user.py")
        self.since_us = int(time.time() * 1e6)

    # -- units

    def install(self, **settings: str) -> str:
        """Install the units, with `settings` as a drop-in of the service; return what the installer said."""
        drop_in = self.home / ".config/systemd/user/mosaicd.service.d/drill.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text("[Service]\n" + "".join(f"{k}={v}\n" for k, v in settings.items()))
        self.give(self.home / ".config")
        return self.machine.run(self.python, self.installer, "install").stdout

    def uninstall(self) -> str:
        return self.machine.run(self.python, self.installer, "uninstall").stdout

    def give(self, path: Path) -> None:
        """Make everything from `path` down the user's."""
        for step in (path, *path.rglob("*")):
            os.chown(step, UID, UID)

    @property
    def home(self) -> Path:
        return self.machine.root / HOME.lstrip("/")

    def configure(self, text: str) -> None:
        """Write the user's mosaicd.toml."""
        folder = self.home / ".config/mosaicd"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mosaicd.toml").write_text(text)
        self.give(self.home / ".config")

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.machine.run("systemctl", "--user", *arguments, check=check)

    def show(self, name: str, unit: str = "mosaicd.service") -> str:
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def journal(self) -> list[dict[str, Any]]:
        """The journal's records about the service, its own and systemd's, in order, of this test alone."""
        said = self.machine.run(
            "journalctl", "--no-pager", "-o", "json", "_SYSTEMD_USER_UNIT=mosaicd.service", "+",
            "USER_UNIT=mosaicd.service", root=True,
        )  # fmt: skip
        records = [json.loads(line) for line in said.stdout.splitlines()]
        return [record for record in records if int(record["__REALTIME_TIMESTAMP"]) >= self.since_us]

    def messages(self) -> list[str]:
        return [str(record.get("MESSAGE")) for record in self.journal()]

    # -- mosaicctl

    def ctl_argv(self, *arguments: str) -> list[str]:
        return self.machine.argv([self.python, "-m", "mosaicctl", *arguments], PYTHONPATH=str(ROOT))

    def ctl(self, *arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run mosaicctl inside and return how it ended, whatever that was."""
        return subprocess.run(
            self.ctl_argv(*arguments), capture_output=True, text=True, timeout=within_s, check=False
        )

    def said(self, *arguments: str) -> str:
        """What mosaicctl prints; it must succeed."""
        done = self.ctl(*arguments)
        assert done.returncode == 0, f"{arguments} exited {done.returncode}: {done.stdout} {done.stderr}"
        return done.stdout

    def answer(self, *arguments: str) -> Any:
        """What mosaicctl answers as JSON; it must succeed."""
        return json.loads(self.said("-o", "json", *arguments))

    def submit(self, *arguments: str) -> str:
        """Submit and return the run's id."""
        return self.said("-o", "name", "submit", *arguments).strip()

    def run_object(self, run_id: str) -> dict[str, Any]:
        shown = self.answer("show", run_id)
        found = shown[0] if isinstance(shown, list) else shown
        assert isinstance(found, dict)
        return found

    def wait_state(self, run_id: str, state: str) -> dict[str, Any]:
        return wait_until(
            lambda: self.run_object(run_id),
            lambda run: run["state"] == state,
            f"{run_id} reaches {state}",
            60,
        )

    # -- the end of a test

    def processes(self) -> list[str]:
        """What the user has running besides the manager and its bus: `pid command` each."""
        listed = self.machine.run("ps", "-U", USER, "-o", "pid=,stat=,args=", root=True, check=False).stdout
        spared = ("/lib/systemd/systemd --user", "(sd-pam", "/usr/bin/dbus-daemon")
        rows = [line.split(None, 2) for line in listed.splitlines()]
        return [f"{pid} {args}" for pid, stat, args in rows if not args.startswith(spared) and stat[0] != "Z"]

    def sweep(self) -> list[str]:
        """Kill what the user has running and return what that was; what was forked meanwhile is left."""
        left = self.processes()
        if left:
            pids = [line.split()[0] for line in left]
            self.machine.run("kill", "-9", *pids, root=True, check=False)
        return left

    def reset(self) -> None:
        """Take mosaicd and everything it left off the machine."""
        self.systemctl("stop", "mosaicd.socket", "mosaicd.service", check=False)
        wait_until(self.sweep, lambda left: not left, "no process of the user is left", 60)
        self.machine.run("sh", "-c", f"rm -rf {HOME}/.config {HOME}/.local {HOME}/work {RUNTIME}/mosaicd")
        self.systemctl("reset-failed", check=False)
        self.systemctl("daemon-reload")
