"""The command line: the table of verbs, and the parser of the verb that is used.

To build the parsers of all verbs takes longer than `list` itself, so a command line builds only the parser of
its verb; `build_parser()` builds all, for --help, tests and the manual.  Arguments after `--` are removed
before argparse parses the rest, because versions of argparse treat them differently.
"""

import argparse
import os
from collections.abc import Iterable
from importlib import import_module
from typing import NoReturn

from mosaicctl import __version__
from mosaicctl.values import nonempty, one_of

FORMATS = ("table", "json", "jsonl", "name")

#: Verb -> its summary, in the order of `mosaicctl --help`.  The module of a verb has its name.
VERBS: dict[str, str] = {
    "submit": "submit a run and return at once",
    "run": "submit a run, follow it, and exit with its code",
    "list": "list runs",
    "show": "print everything known about a run",
    "watch": "print the events of runs as they happen",
    "logs": "print or follow the output of a run, byte for byte",
    "metrics": "print the last values of a run and its learning curve",
    "wait": "wait until runs have ended, or reach a state",
    "pause": "pause runs",
    "resume": "let paused runs continue",
    "stop": "stop runs: TERM, a grace period, KILL",
    "retry": "submit ended runs again, from their last checkpoint",
    "hold": "keep waiting runs from starting",
    "release": "allow held runs to start",
    "set": "change the priority, the labels or the name of runs",
    "pin": "protect runs from pruning",
    "unpin": "remove the protection of pinned runs",
    "prune": "delete ended runs, or list the runs that would be deleted",
    "why": "print what keeps a run from starting",
    "workers": "list the installed workers and their abilities",
    "health": "print the daemon's report about itself",
    "import": "import the runs of the original MOSAIC as history",
    "daemon": "replace the running daemon with the installed program",
    "doctor": "find problems; print what each means and what to do",
    "backup": "write a copy of the registry while the daemon runs",
    "restore": "put a copy of the registry in its place (the daemon must be stopped)",
}

#: Verb -> its module, if Python does not allow the verb as the name of a module.
_MODULES = {"import": "importing"}

#: Verbs of other tools -> what to type here.
_OTHER_TOOLS: dict[str, str] = {
    **dict.fromkeys(("ps", "ls", "queue", "jobs"), "list"),
    "status": "list, or show RUN",
    **dict.fromkeys(("info", "inspect"), "show RUN"),
    **dict.fromkeys(("kill", "cancel", "abort", "terminate"), "stop RUN"),
    **dict.fromkeys(("rm", "remove", "delete", "clean"), "prune"),
    "top": "watch",
    **dict.fromkeys(("restart", "rerun", "resubmit"), "retry RUN"),
    "log": "logs RUN",
    "tail": "logs -f RUN",
    **dict.fromkeys(("suspend", "freeze"), "pause RUN"),
    **dict.fromkeys(("continue", "unpause"), "resume RUN"),
    **dict.fromkeys(("add", "start", "exec"), "submit -- COMMAND"),
}

_EPILOG = """\
RUN is an id, a unique beginning of an id, a name, a pattern in quotes ('taxi-*'), or @ for your
last run.

  mosaicctl submit -n hello -- sh -c 'echo hello; sleep 5'
  mosaicctl watch @
  mosaicctl logs @

`mosaicctl VERB --help` prints the options of a verb with examples; mosaicctl(1) is the manual.
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps prose at the width of the terminal; indented lines (the examples) stay unchanged.

    Note: the width is found without shutil, because its import takes two milliseconds.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
        except (ValueError, OSError):
            columns = 80
        super().__init__(prog, width=max(40, columns - 2))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Return `-o, --output FORMAT`, as argparse does from Python 3.13 on."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = "" if action.nargs == 0 else f" {self._format_args(action, str(action.metavar))}"
        return ", ".join(action.option_strings) + value

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        from textwrap import fill  # only --help needs this import

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
    """A parser whose errors are two lines: the fault, and the command that prints the help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mosaicctl: {_simplify_message(message)}\nSee `{self.prog} --help`.\n")


def _simplify_message(message: str) -> str:
    """Return a message of argparse in the words of mosaicctl; messages of mosaicctl itself stay unchanged."""
    if message.startswith("argument VERB: invalid choice: "):
        return _unknown_verb(message.split("'")[1])
    missing = message.removeprefix("the following arguments are required: ")
    if missing != message:
        return f"{missing} is missing"
    name, colon, fault = message.removeprefix("argument ").partition(": ")
    if not colon:
        return message
    if fault == "expected one argument":
        return f"{name}: the value is missing"
    other = fault.removeprefix("not allowed with argument ")
    return f"{name} and {other} cannot be used together" if other != fault else f"{name}: {fault}"


def _unknown_verb(word: str) -> str:
    """Return the message for an unknown verb, with the verb that does the same or is similar, if any."""
    from difflib import get_close_matches  # only a mistyped verb needs this import

    meant = _OTHER_TOOLS.get(word) or next(iter(get_close_matches(word, VERBS, n=1)), None)
    return f"{word!r} is not a verb{f'; did you mean {meant}?' if meant else ''}"


def _words_before_separator(words: list[str]) -> str:
    """Return the message for words before `--` that are no options: they may be a part of an option."""
    many = len(words) > 1
    return (
        f"{' '.join(map(repr, words))} before -- {'are no options' if many else 'is no option'}; "
        "the options stand before --, the whole command after it"
    )


def _parse_all(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse `argv`; the error for an unknown argument names the help of the verb."""
    args, extra = parser.parse_known_args(argv)
    if extra:
        parser.prog = " ".join(["mosaicctl", *([args.verb] if hasattr(args, "verb") else [])])
        parser.error(f"unknown argument{'' if len(extra) == 1 else 's'}: {' '.join(extra)}")
    return args


def build_parser(verbs: Iterable[str] = VERBS) -> argparse.ArgumentParser:
    """Return a parser of the given verbs; the modules of other verbs are not imported."""
    parser = _Parser(
        prog="mosaicctl",
        usage="mosaicctl [--socket PATH] [-o FORMAT] VERB ...",
        description="Submit training runs to mosaicd, and watch, pause, resume and stop them.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    version = f"mosaicctl {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    _shared_options(parser, None)
    children = parser.add_subparsers(metavar="VERB", title="verbs", prog="mosaicctl", parser_class=_Parser)
    for verb in verbs:
        summary = VERBS[verb]
        child = children.add_parser(
            verb,
            help=summary,
            description=_as_sentence(summary),
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        module = import_module(f"mosaicctl.verbs.{_MODULES.get(verb, verb)}")
        module.arguments(child)
        _shared_options(child, argparse.SUPPRESS)
        child.set_defaults(execute=module.execute, verb=verb)
    return parser


def verb_of(argv: list[str]) -> str | None:
    """Return the verb of a command line; None if the first argument after -o and --socket is not a verb."""
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
        separator = argv.index("--")
        head, tail = argv[:separator], argv[separator + 1 :]
    args = _parse_all(parser, head)
    if tail is not None:
        if hasattr(args, "command"):
            if args.command:
                parser.prog = f"mosaicctl {args.verb}"
                parser.error(_words_before_separator(args.command))
            args.command = tail
        else:
            args = _parse_all(parser, argv)
    if not hasattr(args, "execute"):
        parser.print_help()
        parser.exit(2)
    return args


def _shared_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the options that are allowed before and after the verb."""
    parser.add_argument(
        "--socket",
        metavar="PATH",
        type=nonempty,
        default=default,
        help="the daemon's socket ($MOSAICD_SOCKET)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FORMAT", type=one_of(FORMATS, "a format"),
        default=default if default is not None else "table",
        help="table, json, jsonl (one object a line) or name (ids alone)",
    )  # fmt: skip


def _as_sentence(summary: str) -> str:
    return f"{summary[0].upper()}{summary[1:]}."
