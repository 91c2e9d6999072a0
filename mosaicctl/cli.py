"""The command line: one table of verbs, and the parser of the verb that is used.

Building every verb's parser costs more than `list` itself takes, so a command line gets only its own;
`build_parser()` makes them all, for --help, for tests and for the manual.  Everything after `--` is cut
off before argparse sees it: versions of argparse differ in what they do with it.
"""

import argparse
import os
from collections.abc import Iterable
from importlib import import_module
from typing import NoReturn

from mosaicctl import __version__
from mosaicctl.values import text

FORMATS = ("table", "json", "jsonl", "name")

#: Verb -> what it does, in the order of `mosaicctl --help`.  A verb is the module of its name.
VERBS: dict[str, str] = {
    "submit": "hand in a run and return at once",
    "run": "hand in a run, follow it, and exit with its code",
    "list": "list runs",
    "show": "print everything known of a run",
    "watch": "follow runs as they live",
    "logs": "print or follow a run's output, byte for byte",
    "metrics": "print a run's last values and its learning curve",
    "wait": "wait until runs end, or reach a state",
    "pause": "pause runs",
    "resume": "let paused runs go on",
    "stop": "stop runs: ask, give them time, then force",
    "retry": "hand in ended runs once more, from their last checkpoint",
    "hold": "keep waiting runs from starting",
    "release": "let held runs start when their turn comes",
    "set": "change priority, labels or name of runs",
    "pin": "keep runs from ever being pruned",
    "unpin": "let retention have pinned runs again",
    "prune": "remove ended runs for good, or show what would go",
    "why": "say what keeps a run from starting",
    "workers": "list the installed workers and what they can do",
    "health": "ask the daemon how it is",
    "import": "take the runs of the original MOSAIC's registry over as history",
    "daemon": "have the daemon become the program that is installed now",
    "doctor": "say what is wrong, what it means, and what to do",
    "backup": "write a copy of the registry while the daemon works",
    "restore": "put a copy of the registry in its place (no daemon may run)",
}

#: Verbs that cannot be the name of a module.
_MODULES = {"import": "importing"}

_EPILOG = """\
Runs are named by id, by a unique beginning of it, by name, by a quoted pattern ('taxi-*'),
or by @: your last one.

  mosaicctl submit -n hello -- sh -c 'echo hello; sleep 5'
  mosaicctl watch @
  mosaicctl logs @

`mosaicctl VERB --help` shows each verb's options with examples; mosaicctl(1) is the manual.
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Fills prose to the width, and leaves what is indented, the examples, as it is.

    Knows the width without shutil, whose import would cost every call two milliseconds.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
        except (ValueError, OSError):
            columns = 80
        super().__init__(prog, width=max(40, columns - 2))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        from textwrap import fill  # only who asks for help pays for it

        filled: list[str] = []
        prose: list[str] = []
        for line in [*text.splitlines(), ""]:
            if line and not line.startswith(" "):
                prose.append(line)
                continue
            if prose:
                filled.append(fill(" ".join(prose), width, break_on_hyphens=False, break_long_words=False))
                prose.clear()
            filled.append(line)
        return "\n".join(filled)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and where to read more."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("argument VERB: invalid choice: '"):
            message = _no_verb(message.split("'")[1])
        message = message.removeprefix("argument ")
        self.exit(2, f"mosaicctl: {message}\n(`{self.prog} --help` shows how)\n")


def _no_verb(word: str) -> str:
    from difflib import get_close_matches  # only who mistypes pays for it

    near = get_close_matches(word, VERBS, n=1)
    return f"there is no verb {word!r}{f'; did you mean {near[0]}?' if near else ''}"


def _parsed(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; what is too much is told with the help of the verb, not of the whole program."""
    args, extra = parser.parse_known_args(argv)
    if extra:
        parser.prog = " ".join(["mosaicctl", *([args.verb] if hasattr(args, "verb") else [])])
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    return args


def build_parser(verbs: Iterable[str] = VERBS) -> argparse.ArgumentParser:
    """Return the parser; it understands the given verbs only, and imports no others."""
    parser = _Parser(
        prog="mosaicctl",
        usage="mosaicctl [--socket PATH] [-o FORMAT] VERB ...",
        description="Hand in training runs to mosaicd, and watch, pause, resume and stop them.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mosaicctl {__version__}")
    _shared_options(parser, None)
    children = parser.add_subparsers(metavar="VERB", title="verbs", prog="mosaicctl", parser_class=_Parser)
    for verb in verbs:
        summary = VERBS[verb]
        child = children.add_parser(
            verb, help=summary, description=_sentence(summary), formatter_class=_Formatter, allow_abbrev=False
        )
        module = import_module(f"mosaicctl.verbs.{_MODULES.get(verb, verb)}")
        module.arguments(child)
        _shared_options(child, argparse.SUPPRESS)
        child.set_defaults(execute=module.execute, verb=verb)
    return parser


def verb_of(argv: list[str]) -> str | None:
    """Return the verb of a command line, or None where only the whole parser can say what is meant."""
    words = iter(argv)
    for word in words:
        if word in ("-o", "--output", "--socket"):
            next(words, None)
        elif not word.startswith(("-o", "--output=", "--socket=")):
            return word if word in VERBS else None
    return None


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the parsed command line with `execute` set; argparse exits 2 (or 0 for --help) itself."""
    verb = verb_of(argv)
    parser = build_parser([verb] if verb else [] if argv == ["--version"] else VERBS)
    head, tail = argv, None
    if "--" in argv:
        cut = argv.index("--")
        head, tail = argv[:cut], argv[cut + 1 :]
    args = _parsed(parser, head)
    if tail is not None:
        if hasattr(args, "command"):
            # `run git log -- FILE`: the command had begun, so this -- is its own.
            args.command = [*args.command, "--", *tail] if args.command else tail
        else:
            args = _parsed(parser, argv)
    if not hasattr(args, "execute"):
        parser.print_help()
        parser.exit(2)
    return args


def _shared_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--socket", metavar="PATH", type=text, default=default, help="the daemon's socket ($MOSAICD_SOCKET)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FORMAT", choices=FORMATS,
        default=default if default is not None else "table",
        help="table, json, jsonl (one object a line) or name (ids alone)",
    )  # fmt: skip


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."
