"""The command line: one table of verbs, and a parser that reads a verb's options only when it is used.

Building every verb's options costs more than `list` itself takes, so main() leaves them until argparse
reaches the verb; `build_parser()` fills them all, for tests and for the manual.  Everything after `--`
is cut off before argparse sees it: versions of argparse differ in what they do with it.
"""

import argparse
from importlib import import_module
from typing import Any, NoReturn

from mosaicctl import __version__

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
    "hold": "keep waiting runs from starting",
    "release": "let held runs start when their turn comes",
    "set": "change priority, labels or name of runs",
    "why": "say what keeps a run from starting",
    "workers": "list the installed workers and what they can do",
    "health": "ask the daemon how it is",
}

_EPILOG = """\
runs are named by id, by a unique beginning of it, by name, by a quoted pattern ('taxi-*'),
or by @: your last one.

  mosaicctl submit -n hello -- sh -c 'echo hello; sleep 5'
  mosaicctl watch @
  mosaicctl logs @

`mosaicctl VERB --help` shows each verb's options with examples; mosaicctl(1) is the manual.
"""


class VerbParser(argparse.ArgumentParser):
    """A parser whose options come from the module of its verb, at the first use."""

    verb: str | None = None

    def fill(self) -> None:
        """Add the verb's options, once."""
        verb, self.verb = self.verb, None
        if verb is None:
            return
        module = import_module(f"mosaicctl.{verb}")
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        module.arguments(self)
        _shared_options(self, argparse.SUPPRESS)
        self.set_defaults(execute=module.execute, verb=verb)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.fill()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mosaicctl: {message}\n(`{self.prog} --help` shows how)\n")


def build_parser(lazy: bool = False) -> argparse.ArgumentParser:
    """Return the whole parser; with `lazy`, verbs get their options when they are parsed."""
    parser = VerbParser(
        prog="mosaicctl",
        usage="mosaicctl [--socket PATH] [-o FORMAT] VERB ...",
        description="Hand in training runs to mosaicd, and watch, pause, resume and stop them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mosaicctl {__version__}")
    _shared_options(parser, None)
    verbs = parser.add_subparsers(metavar="VERB", title="verbs", prog="mosaicctl", parser_class=VerbParser)
    for verb, summary in VERBS.items():
        child = verbs.add_parser(verb, help=summary, description=_sentence(summary), allow_abbrev=False)
        child.verb = verb
        if not lazy:
            child.fill()
    return parser


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the parsed command line with `execute` set; argparse exits 2 (or 0 for --help) itself."""
    parser = build_parser(lazy=True)
    head, tail = argv, None
    if "--" in argv:
        cut = argv.index("--")
        head, tail = argv[:cut], argv[cut + 1 :]
    args = parser.parse_args(head)
    if tail is not None:
        if hasattr(args, "command"):
            # `run git log -- FILE`: the command had begun, so this -- is its own.
            args.command = [*args.command, "--", *tail] if args.command else tail
        else:
            args = parser.parse_args(argv)
    if not hasattr(args, "execute"):
        parser.print_help()
        parser.exit(2)
    return args


def _shared_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--socket", metavar="PATH", default=default, help="the daemon's socket ($MOSAICD_SOCKET)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FORMAT", choices=FORMATS,
        default=default if default is not None else "table",
        help="table, json, jsonl (one object a line) or name (ids alone)",
    )  # fmt: skip


def _sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."
