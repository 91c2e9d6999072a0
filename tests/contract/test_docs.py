"""The manual says what the programs do, all of it and nothing else, and its pages are well formed."""

import argparse
import re
import subprocess
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.contract import manual
from tests.contract.sources import python_files
from tests.harness.places import ROOT

PAGES = (
    "mosaicctl.1", "mosaicd.8", "mosaicd.toml.5", "mosaicd-guarantees.7", "mosaic-rundir.5",
    "mosaic-worker.7", "mosaic-protocol.7",
)  # fmt: skip

VERBS: dict[str, str] = import_module("mosaicctl.cli").VERBS

#: Long flags that a page may mention although they are another program's.
STRANGERS = frozenset({"--user", "--system", "--unit", "--config", "--worker-id", "--grpc"})

page_ids = pytest.mark.parametrize("page", manual.pages(), ids=lambda path: path.name)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag of one parser, short and long, but the help that argparse adds."""
    return {
        flag
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for flag in action.option_strings
    } - {"-h", "--help"}


def client_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = import_module("mosaicctl.cli").build_parser()
    return parser


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Verb -> its parser."""
    for action in client_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("mosaicctl has no verbs")


def verb_section(verb: str) -> str:
    """The text of the manual's section about a verb; its heading begins with the verb."""
    found = [text for heading, text in manual.sections("mosaicctl.1").items() if heading.split()[0] == verb]
    assert found, f"mosaicctl.1 has no section for the verb {verb}"
    return found[0]


def settings_groups() -> dict[str, set[str]]:
    """Group of mosaicd.toml -> its keys."""
    module: Any = import_module("mosaicd.config.settings")
    groups = {**module.GROUPS, "paths": module.Paths, "workers": module.Worker}
    return {name: {field.name for field in fields(cls)} for name, cls in groups.items()}


def key_items() -> dict[str, set[str]]:
    """Group of mosaicd.toml -> the keys that its section in the manual defines."""
    found: dict[str, set[str]] = {}
    for heading, names in manual.items("mosaicd.toml.5").items():
        group = re.match(r"\W*(\w+)(\.\w+)?\W*$", heading.replace("\\&", ""))
        if "[" in heading and group:
            found[group[1]] = {name for name in names if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    return found


def test_every_page_is_there() -> None:
    """The pages of the manual exist, and every page is checked."""
    assert {page.name for page in manual.pages()} == set(PAGES)


@page_ids
def test_mandoc_has_nothing_to_say(page: Path) -> None:
    """`mandoc -T lint -W warning` finds nothing."""
    argv = [manual.need("mandoc"), "-T", "lint", "-W", "warning", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@page_ids
def test_groff_has_nothing_to_say(page: Path) -> None:
    """`groff -ww` formats the page without a warning, for a terminal and as PostScript would be."""
    argv = [manual.need("groff"), "-ww", "-mandoc", "-Tutf8", "-z", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


@page_ids
def test_references_lead_somewhere(page: Path) -> None:
    """Every `.Xr` to a page of ours names one that exists."""
    named = re.findall(r"\bXr (mosaic\S*) (\d)", page.read_text(encoding="utf-8"))
    assert {f"{name}.{section}" for name, section in named} <= set(PAGES)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_in_the_manual(verb: str) -> None:
    """Every flag of a verb is in the verb's section of mosaicctl(1)."""
    shared = options(client_parser())
    assert options(verbs()[verb]) - shared <= manual.flags(verb_section(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_section_is_true(verb: str) -> None:
    """A verb's section names no flag that the verb has not."""
    known = options(verbs()[verb]) | options(client_parser()) | STRANGERS
    assert manual.long_flags(verb_section(verb)) <= known


def test_the_manual_has_no_verb_too_many() -> None:
    """The section VERBS (or COMMANDS) has one subsection a verb: what the program has not is not in it."""
    headings = re.findall(r"^\.S([hs]) (.*)$", manual.source("mosaicctl.1"), re.MULTILINE)
    inside, found = False, set()
    for level, heading in headings:
        if level == "h":
            inside = heading.strip('"') in ("VERBS", "COMMANDS")
        elif inside:
            found.add(heading.split()[0])
    assert found == set(verbs())


def test_the_table_of_verbs_is_the_parsers() -> None:
    """Every verb of the table has a parser, and the other way round."""
    assert set(verbs()) == set(VERBS)


def test_shared_flags_are_in_the_manual() -> None:
    """The flags before the verb are described in mosaicctl(1)."""
    assert options(client_parser()) <= manual.flags(manual.rendered("mosaicctl.1"))


def test_exit_codes_are_in_the_manual() -> None:
    """mosaicctl(1) lists every exit code that scripts rely on."""
    section = manual.sections("mosaicctl.1")["EXIT STATUS"]
    assert set("0 2 3 4 5 6 69 124 125 127 130".split()) <= set(re.findall(r"\d+", section))


def test_the_daemons_flags_are_in_the_manual() -> None:
    """mosaicd(8) and `mosaicd --help` name the same flags."""
    parser: argparse.ArgumentParser = import_module("mosaicd.__main__").build_parser()
    text = manual.rendered("mosaicd.8")
    assert options(parser) <= manual.flags(text)
    headings = manual.sections("mosaicd.8")
    own = "".join(headings.get(heading, "") for heading in ("SYNOPSIS", "DESCRIPTION", "OPTIONS"))
    assert manual.long_flags(own) <= options(parser) | {"--help", "--user"}


@pytest.mark.parametrize("group", sorted(settings_groups()))
def test_settings_are_in_the_manual(group: str) -> None:
    """mosaicd.toml(5) has an item for every key of a group, and for no other."""
    assert key_items().get(group) == settings_groups()[group]


def test_the_manual_has_no_group_too_many() -> None:
    """Every `[group]` that mosaicd.toml(5) describes exists."""
    assert set(key_items()) == set(settings_groups())


def shown_forms(number: float) -> set[str]:
    """How a manual may write a number: as it is, or a round size as the count of its binary unit."""
    forms = {f"{number:g}", str(number)}
    for unit in (1 << 10, 1 << 20, 1 << 30):
        if isinstance(number, int) and number >= unit and number % unit == 0:
            forms.add(str(number // unit))
    return forms


def test_defaults_are_in_the_manual() -> None:
    """Every plain default is told in its group's section as the number it is."""
    module: Any = import_module("mosaicd.config.settings")
    sections = manual.sections("mosaicd.toml.5")
    missing = []
    for name, cls in module.GROUPS.items():
        text = " ".join(body for heading, body in sections.items() if f"[{name}]" in heading)
        numbers = {number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}
        for field in fields(cls):
            default = field.default
            if isinstance(default, int | float) and not numbers.intersection(shown_forms(default)):
                missing.append(f"[{name}] {field.name} = {default}")
    assert not missing


def test_methods_are_in_the_manual() -> None:
    """mosaic-protocol(7) names every method and notification of the table, and no other."""
    module: Any = import_module("mosaicd.protocol.methods")
    known = set(module.METHODS) | set(module.NOTIFICATIONS)
    nouns = "|".join(sorted({name.split(".")[0] for name in known}))
    text = manual.rendered("mosaic-protocol.7")
    assert set(re.findall(rf"(?<![\w./-])(?:{nouns})\.[a-z]+\b(?![./])", text)) == known


def test_errors_are_in_the_manual() -> None:
    """mosaic-protocol(7) has every error's code and name."""
    errors: Any = import_module("mosaicd.protocol.errors")
    text = manual.rendered("mosaic-protocol.7").replace("\u2212", "-")
    kinds = [errors.MosaicError, *errors.MosaicError.__subclasses__()]
    missing = [k.name for k in kinds[1:] if k.name not in text or str(k.code).lstrip("-") not in text]
    assert not missing


def test_run_directory_names_are_in_the_manual() -> None:
    """mosaic-rundir(5) describes every file and folder that the code knows by name."""
    rundir: Any = import_module("mosaicd.protocol.rundir")
    names = {value for key, value in vars(rundir).items() if key.isupper() and isinstance(value, str)}
    text = manual.rendered("mosaic-rundir.5")
    assert not [name for name in names if name not in text]


def test_the_readme_names_every_verb() -> None:
    """README.md has a table of the verbs, and the programs it shows exist."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [verb for verb in verbs() if f"`{verb}`" not in text]


@pytest.mark.parametrize("paper", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])
def test_the_papers_name_files_that_exist(paper: str) -> None:
    """Every file that a paper names is there, `rpc/submit.py` somewhere below its room; links lead on."""
    text = (ROOT / paper).read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    files = [str(path.relative_to(ROOT)) for path in python_files()]
    assert not [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)]
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_a_flag_that_is_gone_is_seen() -> None:
    """The comparison can fail: a flag that is rendered is found, one inside a word is not."""
    text = "     -c, --cpus N   well-known x--y --dry-run"
    assert manual.flags(text) == {"-c", "--cpus", "--dry-run"}
