"""What mosaicctl prints, as text: each command line with its output and its exit code."""

from mosaicctl.cli import VERBS
from mosaicd.__main__ import build_parser
from tests.golden import cli_errors, cli_findings, cli_replies, cli_words
from tests.golden.stage import Stage, text_of

_HEAD = """\
The messages of mosaicctl: command line, standard output, standard error (2>), exit code.
SOCKET and DIR stand for paths.  Written by `make golden`.

"""


def text() -> str:
    """Return the text of cli_messages.txt."""
    return _HEAD + text_of(
        helps, *cli_errors.SECTIONS, *cli_replies.SECTIONS, *cli_words.SECTIONS, *cli_findings.SECTIONS
    )


def helps(stage: Stage) -> None:
    """The help of both programs and of each verb."""
    stage.title("Help, at 80 columns")
    stage.note("mosaicd --help")
    stage.lines(build_parser().format_help().splitlines())
    stage.ctl("--help")
    for verb in VERBS:
        stage.ctl(f"{verb} --help")
