#!/usr/bin/env python3
"""Put the user units where `systemctl --user` finds them, or take them away again.

Owns the files mosaicd.service and mosaicd.socket in the user's unit directory and nothing else there:
drop-ins, the registry and the runs are the user's.  The units in the source tree name the usual place of
the program; the installed copy names the program that belongs to the interpreter this runs with.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "user"
UNITS = ("mosaicd.socket", "mosaicd.service")
NEXT = """
start it now       systemctl --user start mosaicd
at every login     systemctl --user enable mosaicd
look at it         systemctl --user status mosaicd; journalctl --user -u mosaicd

Your user manager, and with it mosaicd and every run, ends when your last session does, unless you linger:

                   loginctl enable-linger

keeps the manager from boot to shutdown, so that runs outlive your logout.
"""


def unit_directory() -> Path:
    """Where this user's own units live (systemd.unit(5))."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "systemd/user"


def start_line(argv: list[str]) -> str:
    """Return the ExecStart line; systemd expands % everywhere, and $ in all words but the program's."""
    if not set("\"'\\").isdisjoint(argv[0]):
        sys.exit(f"install_user: systemd starts no program whose path has quotes or backslashes: {argv[0]}")
    words = [word.replace("%", "%%") for word in argv]
    return "ExecStart=" + " ".join(f'"{word}"' for word in words)


def command(program: str | None) -> list[str]:
    """Return the daemon's command line: `program`, the script beside this interpreter, or the module."""
    if program:
        found = shutil.which(program)
        if found is None:
            sys.exit(f"install_user: {program} is not a program that can be run")
        return [str(Path(found).absolute())]
    beside = Path(sys.executable).parent / "mosaicd"
    if os.access(beside, os.X_OK):
        return [str(beside)]
    return [sys.executable, "-m", "mosaicd"]


def rendered(unit: str, argv: list[str]) -> str:
    """Return the text of a unit with its ExecStart replaced."""
    start = start_line(argv)
    lines = (SOURCE / unit).read_text(encoding="utf-8").splitlines()
    return "\n".join(start if line.startswith("ExecStart=") else line for line in lines) + "\n"


def systemctl(*arguments: str) -> bool:
    """Run `systemctl --user`; False where there is no user manager, or it refused and said why."""
    try:
        argv = ["systemctl", "--user", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    if done.returncode != 0:
        print(f"systemctl --user {' '.join(arguments)}: {done.stderr.strip()}", file=sys.stderr)
    return done.returncode == 0


def install(directory: Path, argv: list[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for unit in UNITS:
        target = directory / unit
        fresh = target.with_name(f".{unit}.new")
        fresh.write_text(rendered(unit, argv), encoding="utf-8")
        fresh.replace(target)
        print(f"installed {target}")
    if not systemctl("daemon-reload"):
        print("the units are in place; your user manager will read them when it starts")
    print(NEXT, end="")


def uninstall(directory: Path) -> None:
    if any((directory / unit).exists() for unit in UNITS):
        systemctl("disable", "--now", *UNITS)
    for unit in UNITS:
        target = directory / unit
        if target.exists():
            target.unlink()
            print(f"removed {target}")
    systemctl("daemon-reload")
    print("Runs that are alive go on, and their records stay in your state directory.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--mosaicd", metavar="PROGRAM", help="the daemon the unit starts")
    parser.add_argument("--directory", type=Path, default=unit_directory(), help="where the units go")
    options = parser.parse_args()
    if options.action == "install":
        install(options.directory, command(options.mosaicd))
    else:
        uninstall(options.directory)


if __name__ == "__main__":
    main()
