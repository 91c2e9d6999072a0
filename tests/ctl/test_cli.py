"""The command line: what is understood, where options may stand, and what `--` means."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mosaicctl.cli import VERBS, build_parser, parse, verb_of


def test_every_verb_has_a_module_and_examples_in_its_help() -> None:
    """`--help` teaches: each verb's help shows at least one command to copy."""
    parser = build_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert list(verbs.choices) == list(VERBS)
    for verb, child in verbs.choices.items():
        assert (
            f"\n  mosaicctl {verb}" in child.format_help()
            or f"mosaicctl -o json {verb}" in child.format_help()
        ), verb


def commands(text: str) -> list[str]:
    """The command lines of a help that are mosaicctl's, without what the shell does around them."""
    examples = [line.strip().split("   ")[0] for line in text.splitlines() if line.startswith("  ")]
    parts = [part for line in examples for part in re.split(r"\|\|?|&&|;|\$\(|\)|>", line)]
    return [part.strip() for part in parts if part.strip().startswith("mosaicctl ")]


def test_every_example_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a help shows to copy is a command line that the program takes."""
    for path in ("mosaicd-2026-11-20.sqlite3", "mosaic/var/trainer/trainer.sqlite"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    parser = build_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = [parser.format_help(), *(child.format_help() for child in verbs.choices.values())]
    examples = [line for text in helps for line in commands(text.partition("\n\n  mosaicctl")[2])]
    assert len(examples) > 40
    for line in examples:
        assert parse([word.replace("~", str(tmp_path)) for word in shlex.split(line)[1:]]).verb in VERBS, line


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_help_is_filled_to_the_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prose is filled to the terminal's width; only examples, which are to be copied whole, may be longer."""
    monkeypatch.setenv("COLUMNS", str(columns))
    parser = build_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for verb, child in verbs.choices.items():
        _, _, after = child.format_help().rpartition("alone)\n")
        long = [line for line in after.splitlines() if len(line) > columns and not line.startswith("  ")]
        assert not [line for line in long if not line.startswith(("usage:", "id="))], verb


@pytest.mark.parametrize(
    "argv", [["-o", "json", "list"], ["list", "-o", "json"], ["list", "--output", "json"]]
)
def test_format_stands_before_or_after_the_verb(argv: list[str]) -> None:
    """-o and --socket may stand on either side of the verb."""
    assert parse(argv).output == "json"


def test_an_option_before_the_verb_is_not_reset_by_the_verb() -> None:
    """The verb's own defaults leave what was given before it."""
    args = parse(["--socket", "/run/a", "-o", "name", "show", "x"])
    assert (args.socket, args.output, args.runs) == ("/run/a", "name", ["x"])


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["submit", "--", "echo", "--help", "-o"], ["echo", "--help", "-o"]),
        (["submit", "-n", "x", "echo", "-n"], ["echo", "-n"]),
        (["submit", "-c", "2", "git", "log", "--", "file"], ["git", "log", "--", "file"]),
        (["run", "--", "sh", "-c", "exit 7", "--", "a"], ["sh", "-c", "exit 7", "--", "a"]),
        (["submit", "-f", "x.json"], []),
        (["submit", "--", "--"], ["--"]),
    ],
)
def test_the_command_is_kept_word_for_word(argv: list[str], command: list[str]) -> None:
    """Everything after -- , or after the first word that is no option, is the command's, later -- too."""
    assert parse(argv).command == command


@pytest.mark.parametrize(
    ("argv", "verb"),
    [
        (["list"], "list"),
        (["-o", "list", "show"], "show"),
        (["--socket", "list", "-ojson", "--output=name", "stop", "list"], "stop"),
        (["--socket=/x", "wait"], "wait"),
        (["--version"], None),
        (["lits"], None),
        (["-o"], None),
        ([], None),
    ],
)
def test_the_verb_is_found_before_anything_is_built(argv: list[str], verb: str | None) -> None:
    """Only the parser of the verb in use is built; an option's value is never taken for the verb."""
    assert verb_of(argv) == verb


def test_two_dashes_end_the_options_of_any_verb() -> None:
    """`show -- -odd-name` is about a run of that name."""
    assert parse(["show", "--", "-odd-name"]).runs == ["-odd-name"]


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that wrote --gra would break when --graph comes: it is refused today."""
    with pytest.raises(SystemExit) as exit:
        parse(["stop", "--gra", "3", "x"])
    assert exit.value.code == 2
    assert "mosaicctl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["lits"], ["list", "--bogus"], ["-o", "xml", "list"], ["submit", "-c", "many"]]
)
def test_usage_errors_are_2_and_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that is not understood exits 2, with a sentence and where to find help."""
    with pytest.raises(SystemExit) as exit:
        parse(argv)
    err = capsys.readouterr().err
    assert exit.value.code == 2
    assert err.startswith("mosaicctl: ")
    assert "--help" in err


def test_no_verb_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Alone, mosaicctl says what there is and exits 2."""
    with pytest.raises(SystemExit) as exit:
        parse([])
    assert exit.value.code == 2
    assert "submit" in capsys.readouterr().out


def test_version_is_the_distributions() -> None:
    """`mosaicctl --version` names the version of the package, and the daemon's is the same."""
    import mosaicctl
    import mosaicd

    done = subprocess.run(
        [sys.executable, "-m", "mosaicctl", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"mosaicctl {mosaicctl.__version__}\n"
    assert mosaicctl.__version__ == mosaicd.__version__


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["lits"], ["'lits'", "list", "`mosaicctl --help`"]),
        (["xyzzy"], ["'xyzzy'", "`mosaicctl --help`"]),
        (["submit", "--bogus", "--", "true"], ["--bogus", "`mosaicctl submit --help`"]),
        (["--bogus", "list"], ["--bogus", "`mosaicctl list --help`"]),
    ],
)
def test_a_slip_is_told_shortly(
    argv: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped verb brings the nearest one, an unknown option the help of its verb; 2 either way."""
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert all(text in err for text in named)
    assert len(err.splitlines()) == 2
