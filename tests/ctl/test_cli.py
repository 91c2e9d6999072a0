"""The parser of the command line: verbs, places of options, the word `--`, help and usage errors."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mosaicctl.cli import VERBS, build_parser, parse, verb_of


def test_every_verb_has_a_module_and_examples_in_its_help() -> None:
    """Each verb has a module, and its help shows at least one example command."""
    parser = build_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert list(verbs.choices) == list(VERBS)
    for verb, child in verbs.choices.items():
        assert (
            f"\n  mosaicctl {verb}" in child.format_help()
            or f"mosaicctl -o json {verb}" in child.format_help()
        ), verb


def commands(text: str) -> list[str]:
    """Return the mosaicctl command lines in the examples of a help text, without shell syntax."""
    examples = [line.strip().split("   ")[0] for line in text.splitlines() if line.startswith("  ")]
    parts = [part for line in examples for part in re.split(r"\|\|?|&&|;|\$\(|\)|>", line)]
    return [part.strip() for part in parts if part.strip().startswith("mosaicctl ")]


def test_parser_accepts_every_example_in_the_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The parser accepts every example in a help text."""
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
def test_help_is_wrapped_at_the_terminal_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help text is wrapped at the terminal's width; only examples may be longer."""
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


def test_option_before_the_verb_is_not_reset_by_the_verb() -> None:
    """Defaults of the verb do not overwrite options before the verb."""
    args = parse(["--socket", "/run/a", "-o", "name", "show", "x"])
    assert (args.socket, args.output, args.runs) == ("/run/a", "name", ["x"])


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["submit", "--", "echo", "--help", "-o"], ["echo", "--help", "-o"]),
        (["submit", "-n", "x", "echo", "-n"], ["echo", "-n"]),
        (["submit", "-c", "2", "--", "git", "log", "--", "file"], ["git", "log", "--", "file"]),
        (["run", "--", "sh", "-c", "exit 7", "--", "a"], ["sh", "-c", "exit 7", "--", "a"]),
        (["submit", "-f", "x.json"], []),
        (["submit", "--", "--"], ["--"]),
    ],
)
def test_words_of_the_command_are_kept(argv: list[str], command: list[str]) -> None:
    """Every word after `--`, or after the first word that is no option, belongs to the command."""
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
def test_verb_is_found_without_building_the_parser(argv: list[str], verb: str | None) -> None:
    """The verb is found without the parser; the value of an option is never taken for the verb."""
    assert verb_of(argv) == verb


def test_two_dashes_end_the_options_of_any_verb() -> None:
    """In `show -- -odd-name`, `-odd-name` is the name of a run."""
    assert parse(["show", "--", "-odd-name"]).runs == ["-odd-name"]


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    """An abbreviated option such as --gra is refused, since a new option could make it ambiguous."""
    with pytest.raises(SystemExit) as exit:
        parse(["stop", "--gra", "3", "x"])
    assert exit.value.code == 2
    assert "mosaicctl" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["lits"], ["list", "--bogus"], ["-o", "xml", "list"], ["submit", "-c", "many"]]
)
def test_usage_error_exits_2_and_names_the_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line exits with 2, an error and the command for help."""
    with pytest.raises(SystemExit) as exit:
        parse(argv)
    err = capsys.readouterr().err
    assert exit.value.code == 2
    assert err.startswith("mosaicctl: ")
    assert "--help" in err


def test_no_verb_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """mosaicctl without a verb prints the help and exits with 2."""
    with pytest.raises(SystemExit) as exit:
        parse([])
    assert exit.value.code == 2
    assert "submit" in capsys.readouterr().out


def test_version_is_that_of_the_package() -> None:
    """`mosaicctl --version` prints the version of the package, which is also the daemon's."""
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
        (["ps"], ["mean list?"]),
        (["ls"], ["mean list?"]),
        (["status"], ["mean list, or show RUN?"]),
        (["kill", "a"], ["mean stop RUN?"]),
        (["cancel", "a"], ["mean stop RUN?"]),
        (["rm", "a"], ["mean prune?"]),
        (["top"], ["mean watch?"]),
        (["restart", "a"], ["mean retry RUN?"]),
        (["log", "a"], ["mean logs RUN?"]),
        (["tail", "a"], ["mean logs -f RUN?"]),
        (["submit", "--bogus", "--", "true"], ["--bogus", "`mosaicctl submit --help`"]),
        (["--bogus", "list"], ["--bogus", "`mosaicctl list --help`"]),
    ],
)
def test_usage_error_suggests_the_nearest_verb_or_the_help(
    argv: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped verb gives the nearest verb, a verb of another tool that of mosaicctl, an unknown option
    the help command; all exit with 2."""
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert all(text in err for text in named)
    assert len(err.splitlines()) == 2
