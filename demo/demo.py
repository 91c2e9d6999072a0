"""`make demo`: a private daemon, two runs, a pause, a stop and a learning curve, before your eyes.

Everything happens in one temporary directory.  Whatever ends the demo (its end, an error, Ctrl-C), the
runs are stopped, the daemon is stopped and the directory is removed: nothing is left behind.
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
CONFIG = "# One slot, so that you can see somebody wait.\n[cpus]\nslots = 1\n"
DEADLINE_S = 20.0
LOOK_S = 3.0
EPISODES = 2000
#: A table is learned in a blink; a pause after each episode leaves time to watch.
EPISODE_DELAY_S = 0.004


class Failed(Exception):
    """The demo cannot go on; the text says why."""


class Narrator:
    """Prints the story; colour only where a terminal wants it."""

    def __init__(self) -> None:
        self._has_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def tell(self, text: str) -> None:
        """Say what comes next."""
        print()
        print(textwrap.fill(text, 88))

    def command(self, argv: list[str]) -> None:
        """Show a command as one would type it."""
        shown = f"$ {shlex.join(argv)}"
        print(f"\x1b[1;36m{shown}\x1b[0m" if self._has_colour else shown, flush=True)


class Stage:
    """One temporary directory with a daemon in it, and `mosaicctl` to talk to it."""

    def __init__(self, home: Path, narrator: Narrator) -> None:
        self.home = home
        self.log = home / "daemon.log"
        self._narrator = narrator
        self._daemon: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, "MOSAICD_SOCKET": str(home / "s")}
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
            # Its own session: Ctrl-C is for the demo, which then ends the daemon in good order.
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "mosaicd", *places],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        _wait_until(self._is_ready, "the daemon did not get ready")

    def ctl(self, *argv: str) -> None:
        """Show a mosaicctl command and carry it out."""
        self._narrator.command(["mosaicctl", *argv])
        code = subprocess.call(self._ctl(argv), env=self._environment)
        if code != 0:
            raise Failed(f"mosaicctl {argv[0]} exited with {code}")

    def ctl_for(self, seconds: float, *argv: str) -> None:
        """Show a command that would go on, and press Ctrl-C on it after a while."""
        self._narrator.command(["mosaicctl", *argv])
        with subprocess.Popen(self._ctl(argv), env=self._environment) as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        print("^C  (watching changes nothing: the run goes on)", flush=True)

    def ask(self, *argv: str) -> Any:
        """Return what a mosaicctl command prints as JSON, without showing it."""
        done = subprocess.run(
            self._ctl(("-o", "json", *argv)), env=self._environment, stdout=subprocess.PIPE, check=True
        )
        return json.loads(done.stdout)

    def close(self) -> None:
        """End the runs, the daemon and its launcher; safe at any time, and more than once."""
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


def play(stage: Stage, tell: Callable[[str], None], episodes: int) -> float:
    """Carry out the whole story; return the mean return of the last 100 episodes."""
    _meet(stage, tell, episodes)
    _pause_and_queue(stage, tell)
    tell("The taxi goes on where it stood. Let us watch it to its end.")
    stage.ctl("resume", "--wait", "taxi")
    stage.ctl("watch", "taxi")
    tell(
        "Its slot was free the moment its last process had gone, so the second run is at work already. "
        "We have seen enough of it: ask it to end, with a reason, and wait until it has."
    )
    stage.ctl("wait", "--state", "EXEC", "patient")
    stage.ctl("list")
    stage.ctl("stop", "--wait", "--reason", "the demo is over", "patient")
    stage.ctl("list")
    tell(
        "And what has the taxi learned? It began by bumping into walls, at several hundred penalty "
        "points an episode. An episode above 0 means: passenger found, carried, delivered, and no detour."
    )
    stage.ctl("metrics", "--plot", "taxi")
    return float(stage.ask("metrics", "taxi")["metrics"]["mean_return_100"])


def _meet(stage: Stage, tell: Callable[[str], None], episodes: int) -> None:
    tell("A daemon of your own, in a temporary directory, with a single CPU slot to give away:")
    stage.start_daemon()
    stage.ctl("health")
    tell("It knows which workers are installed. This one learns with a table of numbers, and needs no GPU:")
    stage.ctl("workers")
    tell(
        "Hand in a run. The reply comes when the daemon has written it down and will not forget it, "
        "even if somebody pulls the plug. (The pause after each episode is there to let you watch.)"
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
    tell(
        "Watch it from its first event on: INIT (accepted), HSHK (it has its slot), RDY (its process is "
        "there), EXEC (it works)."
    )
    stage.ctl_for(LOOK_S, "watch", "--since", "0", "taxi")


def _pause_and_queue(stage: Stage, tell: Callable[[str], None]) -> None:
    tell(
        "Pause it. This worker knows how to pause by itself, between two episodes; any other program "
        "would be frozen, with all its children."
    )
    stage.ctl("pause", "--wait", "taxi")
    tell(
        "A second run, an ordinary command. The paused taxi keeps its slot, so this one has to wait, "
        "and you may ask why:"
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
        "--episodes", metavar="N", type=int, default=EPISODES, help="how long the taxi learns"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the directory (registry, logs, checkpoints)"
    )
    return parser.parse_args()


def main() -> int:
    """Play the demo; 0 when the taxi has learned, 1 when something went wrong, 130 on Ctrl-C."""
    options = _arguments()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # in a script's background INT is ignored
        signal.signal(number, _interrupt)
    narrator = Narrator()
    home = Path(tempfile.mkdtemp(prefix="mosaic-demo-"))
    stage = Stage(home, narrator)
    begun = time.monotonic()
    code = 1
    try:
        mean = play(stage, narrator.tell, options.episodes)
        if mean <= 0:
            raise Failed(
                f"the taxi has not learned its trade: mean return of the last 100 episodes is {mean:.1f}"
            )
        narrator.tell(f"Mean return of the last 100 episodes: {mean:.1f}. The taxi has learned its trade.")
        code = 0
    except KeyboardInterrupt:
        narrator.tell("Interrupted: cleaning up.")
        code = 130
    except (Failed, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"\nThe demo failed: {error}\n{_tail(stage.log)}")
    finally:
        _clean_up(stage, narrator, options.keep)
    narrator.tell(
        f"That took {time.monotonic() - begun:.0f} s. Your own turn: README.md, or `mosaicctl --help`."
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
        narrator.tell(f"The daemon has ended. As you asked, its directory stays: {stage.home}")
        return
    shutil.rmtree(stage.home)
    narrator.tell("The daemon has ended and its directory is gone: nothing is left behind.")


def _tail(log: Path) -> str:
    try:
        return f"The daemon's last words:\n{log.read_text(errors='replace')[-1500:]}"
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
