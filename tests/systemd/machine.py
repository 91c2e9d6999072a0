"""A booted machine with one user, and the user's installation of mosaicd.

`Machine` owns the boot process and its pipe; `UserService` owns one installation of the units for one test.
Commands run inside the namespaces of the machine, as its user unless `root` is set.
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
    """A running systemd; `close`, or the end of this process, stops it."""

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

    def boot_error(self) -> tuple[int, str]:
        """Return the exit status and the error of a machine that did not boot."""
        _, error = self.boot.communicate()
        return self.boot.returncode, error.decode(errors="replace")

    def close(self) -> None:
        """Stop the machine."""
        assert self.boot.stdin
        self.boot.stdin.close()
        self.boot.wait(timeout=60)
        for stream in (self.boot.stdout, self.boot.stderr):
            assert stream
            stream.close()

    @property
    def root(self) -> Path:
        """Return the machine's `/` as seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    def argv(self, command: Sequence[str], root: bool = False, **environment: str) -> list[str]:
        """Return the command line that runs `command` inside."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--root", "--wd"]
        identity = [] if root else ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--init-groups"]
        of_user = {"HOME": HOME, "USER": USER, "XDG_RUNTIME_DIR": RUNTIME}
        given = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            **({"HOME": "/root"} if root else of_user),
            **environment,
        }
        return [*enter, *identity, "env", "-i", *(f"{k}={v}" for k, v in given.items()), *command]

    def run(
        self, *command: str, root: bool = False, check: bool = True, within_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside until it ends; a failure shows its output."""
        done = subprocess.run(
            self.argv(command, root), capture_output=True, text=True, timeout=within_s, check=False
        )
        if check:
            assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def outer_pid(self, inner: int) -> int:
        """Return the pid, as seen from outside, of the process that has pid `inner` inside."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
                namespace = os.readlink(status.parent / "ns/pid")
            except OSError:
                continue
            if namespace != os.readlink(f"/proc/{self.pid}/ns/pid"):
                continue
            numbers = next(line for line in text.splitlines() if line.startswith("NSpid:")).split()[1:]
            if int(numbers[-1]) == inner:
                return int(status.parent.name)
        raise AssertionError(f"no process {inner} inside the machine")


class UserService:
    """mosaicd as the machine's user has it, from `make install-user` to its removal."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.python = sys.executable
        self.installer = str(ROOT / "packaging/systemd/install_user.py")
        self.since_us = int(time.time() * 1e6)

    # -- units

    def install(self, **settings: str) -> str:
        """Install the units, with `settings` as a drop-in of the service; return the output of the
        installer."""
        drop_in = self.home / ".config/systemd/user/mosaicd.service.d/drill.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text("[Service]\n" + "".join(f"{k}={v}\n" for k, v in settings.items()))
        self.give_to_user(self.home / ".config")
        return self.machine.run(self.python, self.installer, "install").stdout

    def uninstall(self) -> str:
        """Remove the units; return the output of the installer."""
        return self.machine.run(self.python, self.installer, "uninstall").stdout

    def give_to_user(self, path: Path) -> None:
        """Make the user the owner of `path` and of everything below."""
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
        self.give_to_user(self.home / ".config")

    def systemctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.machine.run("systemctl", "--user", *arguments, check=check)

    def show(self, name: str, unit: str = "mosaicd.service") -> str:
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    @property
    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal's records about the service since the start of this test, its own and systemd's,
        in order."""
        listed = self.machine.run(
            "journalctl", "--no-pager", "-o", "json", "_SYSTEMD_USER_UNIT=mosaicd.service", "+",
            "USER_UNIT=mosaicd.service", root=True,
        )  # fmt: skip
        records = [json.loads(line) for line in listed.stdout.splitlines()]
        return [record for record in records if int(record["__REALTIME_TIMESTAMP"]) >= self.since_us]

    def messages(self) -> list[str]:
        return [str(record.get("MESSAGE")) for record in self.journal()]

    # -- mosaicctl

    def ctl_argv(self, *arguments: str) -> list[str]:
        """Return the command line that runs mosaicctl inside."""
        return self.machine.argv([self.python, "-m", "mosaicctl", *arguments], PYTHONPATH=str(ROOT))

    def ctl(self, *arguments: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run mosaicctl inside; return its result, also if it fails."""
        return subprocess.run(
            self.ctl_argv(*arguments), capture_output=True, text=True, timeout=within_s, check=False
        )

    def ctl_output(self, *arguments: str) -> str:
        """Return the output of mosaicctl, which must succeed."""
        done = self.ctl(*arguments)
        assert done.returncode == 0, f"{arguments} exited {done.returncode}: {done.stdout} {done.stderr}"
        return done.stdout

    def ctl_json(self, *arguments: str) -> Any:
        """Return the JSON output of mosaicctl, which must succeed."""
        return json.loads(self.ctl_output("-o", "json", *arguments))

    def submit(self, *arguments: str) -> str:
        """Submit a command; return the run id."""
        return self.ctl_output("-o", "name", "submit", *arguments).strip()

    def run_object(self, run_id: str) -> dict[str, Any]:
        """Return a run as `show` prints it."""
        shown = self.ctl_json("show", run_id)
        run = shown[0] if isinstance(shown, list) else shown
        assert isinstance(run, dict)
        return run

    def wait_state(self, run_id: str, state: str) -> dict[str, Any]:
        """Wait until the run has a state; return the run."""
        return wait_until(
            lambda: self.run_object(run_id),
            lambda run: run["state"] == state,
            f"{run_id} reaches {state}",
            60,
        )

    # -- cleanup

    def processes(self) -> list[str]:
        """Return `pid command` for each process of the user, except the manager and its bus."""
        listed = self.machine.run("ps", "-U", USER, "-o", "pid=,stat=,args=", root=True, check=False).stdout
        expected = ("/lib/systemd/systemd --user", "(sd-pam", "/usr/bin/dbus-daemon")
        rows = [line.split(None, 2) for line in listed.splitlines()]
        return [
            f"{pid} {args}" for pid, stat, args in rows if not args.startswith(expected) and stat[0] != "Z"
        ]

    def sweep(self) -> list[str]:
        """Kill the processes of the user; return them. Processes that are forked meanwhile stay."""
        found = self.processes()
        if found:
            pids = [line.split()[0] for line in found]
            self.machine.run("kill", "-9", *pids, root=True, check=False)
        return found

    def reset(self) -> None:
        """Stop mosaicd and remove all its files and processes from the machine."""
        self.systemctl("stop", "mosaicd.socket", "mosaicd.service", check=False)
        wait_until(self.sweep, lambda found: not found, "all processes of the user have ended", 60)
        self.machine.run("sh", "-c", f"rm -rf {HOME}/.config {HOME}/.local {HOME}/work {RUNTIME}/mosaicd")
        self.systemctl("reset-failed", check=False)
        self.systemctl("daemon-reload")
