"""`make demo`: a private daemon, two runs, a pause, a stop and a learning curve.

Everything happens in one temporary directory.  However the demo ends (normally, by an error or by Ctrl-C), it
stops the runs and the daemon and removes the directory.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "# One slot, so that the second run has to wait.\n[cpus]\nslots = 1\n"
DEADLINE_S = 20.0
LOOK_S = 3.0
EPISODES = 2000
#: Learning a table takes milliseconds; a pause after each episode leaves time to watch.
EPISODE_DELAY_S = 0.004


class Failed(Exception):
    """The demo cannot continue; the text is the reason."""


class Narrator:
    """Prints the text of the demo; in colour only on a terminal."""

    def __init__(self) -> None:
        self._has_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Print what happens next."""
        print()
        print(textwrap.fill(text, 88))

    def command(self, argv: list[str]) -> None:
        """Print a command as a user would type it."""
        shown = f"$ {shlex.join(argv)}"
        print(f"\x1b[1;36m{shown}\x1b[0m" if self._has_colour else shown, flush=True)


#: `make demo` sets these; mosaicctl would name them at every submit.
_OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")


class Stage:
    """A temporary directory with a private daemon, and `mosaicctl` commands for it."""

    def __init__(self, home: Path, narrator: Narrator) -> None:
        self.home = home
        self.log = home / "daemon.log"
        self._narrator = narrator
        self._daemon: subprocess.Popen[bytes] | None = None
        own = {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
        self._environment = {**own, "MOSAICD_SOCKET": str(home / "s")}
        if not _is_installed():
            rooms = [ROOT, ROOT / "workers/sdk", ROOT / "workers/tabular"]
            self._environment["PYTHONPATH"] = os.pathsep.join(map(str, rooms))

    def start_daemon(self) -> None:
        """Start mosaicd and return when it answers."""
        config = self.home / "mosaicd.toml"
        config.write_text(CONFIG)
        places = [
            "--state-dir",
            str(self.home / "state"),
            "--socket",
            str(self.home / "s"),
            "--config",
            str(config),
        ]
        self._narrator.command(["mosaicd", *places])
        with open(self.log, "wb") as log:
            # Its own session: Ctrl-C reaches the demo alone, which then stops the daemon.
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "mosaicd", *places],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        _wait_until(self._is_ready, "the daemon did not become ready")

    def ctl(self, *argv: str) -> None:
        """Print a mosaicctl command and run it."""
        self._narrator.command(["mosaicctl", *argv])
        code = subprocess.call(self._ctl(argv), env=self._environment)
        if code != 0:
            raise Failed(f"mosaicctl {argv[0]} exited with {code}")

    def ctl_for(self, seconds: float, *argv: str) -> None:
        """Print and run a command that does not end, and interrupt it after a while."""
        self._narrator.command(["mosaicctl", *argv])
        with subprocess.Popen(self._ctl(argv), env=self._environment) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        print("^C  (watching changes nothing: the run continues)", flush=True)

    def ask(self, *argv: str) -> Any:
        """Return the JSON output of a mosaicctl command, without printing it."""
        done = subprocess.run(
            self._ctl(("-o", "json", *argv)), env=self._environment, stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout)

    def close(self) -> None:
        """Stop the runs, the daemon and its launcher; may be called at any time, and repeatedly."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return
        if daemon.poll() is None:
            stop = ["stop", "--all", "--grace", "0", "--wait"]
            quiet = subprocess.DEVNULL
            subprocess.run(
                self._ctl(stop),
                env=self._environment,
                stdout=quiet,
                stderr=quiet,
                timeout=DEADLINE_S,
                check=False,
            )
        children = _children(daemon.pid)
        daemon.terminate()
        try:
            daemon.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        _wait_until(lambda: not any(map(_is_alive, children)), f"processes {children} did not end")

    def _ctl(self, argv: tuple[str, ...] | list[str]) -> list[str]:
        return [sys.executable, "-m", "mosaicctl", *argv]

    def _is_ready(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise Failed(f"the daemon ended with {self._daemon.returncode}:\n{self.log.read_text()[-2000:]}")
        quiet = subprocess.DEVNULL
        return subprocess.call(self._ctl(["health"]), env=self._environment, stdout=quiet, stderr=quiet) == 0


def play(stage: Stage, say: Callable[[str], None], episodes: int) -> float:
    """Run all steps of the demo; return the mean return of the last 100 episodes."""
    _meet(stage, say, episodes)
    _pause_and_queue(stage, say)
    say("Resume the taxi: it continues where it paused. Watch it until it ends.")
    stage.ctl("resume", "--wait", "taxi")
    stage.ctl("watch", "taxi")
    say(
        "The slot was free as soon as the last process of the taxi had exited, so the second run is already "
        "executing. Stop the second run, with a reason, and wait until it has ended."
    )
    stage.ctl("wait", "--state", "EXEC", "patient")
    stage.ctl("list")
    stage.ctl("stop", "--wait", "--reason", "the demo is over", "patient")
    stage.ctl("list")
    say(
        "What has the taxi learned? At first it hit walls and lost several hundred points per episode. "
        "A return above 0 means that it picked up the passenger and delivered them without a detour."
    )
    stage.ctl("metrics", "--plot", "taxi")
    return float(stage.ask("metrics", "taxi")["metrics"]["mean_return_100"])


def _meet(stage: Stage, say: Callable[[str], None], episodes: int) -> None:
    say("Start a private daemon in a temporary directory, with one CPU slot:")
    stage.start_daemon()
    stage.ctl("health")
    say("List the installed workers. This worker learns a table of numbers and needs no GPU:")
    stage.ctl("workers")
    say(
        "Submit a run. The daemon answers once the run is saved to disk, so it survives a crash or a power "
        "failure. (The pause after each episode only leaves time to watch.)"
    )
    stage.ctl(
        "submit",
        "-n",
        "taxi",
        "--worker",
        "tabular",
        "--set",
        "env_id=Taxi-v3",
        "--set",
        f"episodes={episodes}",
        "--set",
        f"episode_delay_s={EPISODE_DELAY_S}",
    )
    say(
        "Watch the run from its first event: INIT (accepted), HSHK (its slot is reserved), RDY (its process "
        "has started), EXEC (it executes)."
    )
    stage.ctl_for(LOOK_S, "watch", "--since", "0", "taxi")


def _pause_and_queue(stage: Stage, say: Callable[[str], None]) -> None:
    say(
        "Pause the run. This worker can pause by itself, between two episodes; any other program would be "
        "frozen, with all its child processes."
    )
    stage.ctl("pause", "--wait", "taxi")
    say(
        "Submit a second run, an ordinary command. The paused taxi keeps its slot, so the second run has to "
        "wait. Ask why:"
    )
    stage.ctl("submit", "-n", "patient", "--", "sleep", "600")
    stage.ctl("list")
    stage.ctl("why", "patient")


def _is_installed() -> bool:
    from importlib.util import find_spec

    return all(find_spec(name) for name in ("mosaicctl", "mosaicd", "mosaic_worker", "mosaic_tabular"))


def _wait_until(is_true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        if time.monotonic() > deadline:
            raise Failed(otherwise)
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo ARGS=...", description="A tour of mosaicd in half a minute."
    )
    parser.add_argument(
        "--episodes", metavar="N", type=int, default=EPISODES, help="number of episodes that the taxi learns"
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the directory (registry, logs, checkpoints)"
    )
    return parser.parse_args()


def main() -> int:
    """Run the demo; return 0 if the taxi has learned, 1 after an error, 130 after Ctrl-C."""
    options = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a script's background job ignores INT
        signal.signal(number, _interrupt)
    narrator = Narrator()
    home = Path(tempfile.mkdtemp(prefix="mosaic-demo-"))
    stage = Stage(home, narrator)
    begun = time.monotonic()
    code = 1
    try:
        mean = play(stage, narrator.say, options.episodes)
        if mean <= 0:
            raise Failed(f"the taxi has not learned: the mean return of the last 100 episodes is {mean:.1f}")
        narrator.say(f"Mean return of the last 100 episodes: {mean:.1f}. The taxi has learned.")
        code = 0
    except KeyboardInterrupt:
        narrator.say("Interrupted: cleaning up.")
        code = 130
    except (Failed, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"\nThe demo failed: {error}\n{_tail(stage.log)}")
    finally:
        _clean_up(stage, narrator, options.keep)
    narrator.say(
        f"The demo took {time.monotonic() - begun:.0f} s. Continue with README.md, or `mosaicctl --help`."
    )
    return code


def _clean_up(stage: Stage, narrator: Narrator, keep: bool) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        stage.close()
    except Failed as error:
        sys.stderr.write(f"The demo could not clean up: {error}\n")
    if keep:
        narrator.say(f"The daemon has ended. Its directory is kept: {stage.home}")
        return
    shutil.rmtree(stage.home)
    narrator.say("The daemon has ended and its directory is removed.")


def _tail(log: Path) -> str:
    try:
        return f"The end of the daemon's log:\n{log.read_text(errors='replace')[-1500:]}"
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
