#!/usr/bin/env python3
"""Install the user units for `systemctl --user`, or remove them.

This program owns the files mosaicd.service and mosaicd.socket in the user's unit directory, and nothing else:
drop-ins, the registry and the runs belong to the user.  The units in the source tree name the usual path of
the program; the installed copy names the program of the interpreter that runs this script.
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
start now          systemctl --user start mosaicd
start at login     systemctl --user enable mosaicd
status and log     systemctl --user status mosaicd; journalctl --user -u mosaicd

When your last session ends, systemd ends your user manager, mosaicd and all your runs. To keep them after
logout, from boot to shutdown:

                   loginctl enable-linger
"""


def unit_directory() -> Path:
    """Return the directory of this user's own units (systemd.unit(5))."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "systemd/user"


def start_line(argv: list[str]) -> str:
    """Return the ExecStart line; systemd expands % everywhere, and $ in all words but the first."""
    if not set("\"'\\").isdisjoint(argv[0]):
        sys.exit(
            f"install_user: systemd cannot start a program whose path has quotes or backslashes: {argv[0]}"
        )
    words = [word.replace("%", "%%") for word in argv]
    return "ExecStart=" + " ".join(f'"{word}"' for word in words)


def command(program: str | None) -> list[str]:
    """Return the daemon's command line: `program`, the script beside this interpreter, or the module."""
    if program:
        found = shutil.which(program)
        if found is None:
            sys.exit(f"install_user: {program} is not an executable file")
        return [str(Path(found).absolute())]
    beside = Path(sys.executable).parent / "mosaicd"
    if os.access(beside, os.X_OK):
        return [str(beside)]
    return [sys.executable, "-m", "mosaicd"]


def rendered(unit: str, argv: list[str]) -> str:
    """Return the text of a unit whose ExecStart line starts `argv`."""
    start = start_line(argv)
    lines = (SOURCE / unit).read_text(encoding="utf-8").splitlines()
    return "\n".join(start if line.startswith("ExecStart=") else line for line in lines) + "\n"


def systemctl(*arguments: str) -> bool:
    """Run `systemctl --user`; return False if there is no user manager, or if it printed an error."""
    try:
        argv = ["systemctl", "--user", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    if done.returncode != 0:
        print(f"systemctl --user {' '.join(arguments)}: {done.stderr.strip()}", file=sys.stderr)
    return done.returncode == 0


def install(directory: Path, argv: list[str]) -> None:
    """Write the units, which start `argv`, into `directory`, and reload the user manager."""
    directory.mkdir(parents=True, exist_ok=True)
    for unit in UNITS:
        target = directory / unit
        fresh = target.with_name(f".{unit}.new")
        fresh.write_text(rendered(unit, argv), encoding="utf-8")
        fresh.replace(target)
        print(f"installed {target}")
    if not systemctl("daemon-reload"):
        print("the units are installed; your user manager reads them when it starts")
    print(NEXT, end="")


def uninstall(directory: Path) -> None:
    """Stop and disable the units, and remove them from `directory`."""
    if any((directory / unit).exists() for unit in UNITS):
        systemctl("disable", "--now", *UNITS)
    for unit in UNITS:
        target = directory / unit
        if target.exists():
            target.unlink()
            print(f"removed {target}")
    systemctl("daemon-reload")
    print("Live runs continue, and all records stay in your state directory.")


def main() -> None:
    """Install or uninstall as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--mosaicd", metavar="PROGRAM", help="the program that the unit starts")
    parser.add_argument(
        "--directory", type=Path, default=unit_directory(), help="the directory for the units"
    )
    options = parser.parse_args()
    if options.action == "install":
        install(options.directory, command(options.mosaicd))
    else:
        uninstall(options.directory)


if __name__ == "__main__":
    main()
