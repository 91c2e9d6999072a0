"""The manual documents all verbs, flags, settings, methods and files, and no others; its pages are valid."""

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

#: Long flags of other programs that a page may mention.
OTHER_PROGRAMS_FLAGS = frozenset({"--user", "--system", "--unit", "--config", "--worker-id", "--grpc"})

page_ids = pytest.mark.parametrize("page", manual.pages(), ids=lambda path: path.name)


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the short and long flags of a parser, without the help of argparse."""
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
    """Return the parser of each verb."""
    for action in client_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("mosaicctl has no verbs")


def verb_section(verb: str) -> str:
    """Return the text of the section about a verb; its heading begins with the verb."""
    found = [text for heading, text in manual.sections("mosaicctl.1").items() if heading.split()[0] == verb]
    assert found, f"mosaicctl.1 has no section for the verb {verb}"
    return found[0]


def settings_groups() -> dict[str, set[str]]:
    """Return the keys of each group of mosaicd.toml."""
    module: Any = import_module("mosaicd.config.settings")
    groups = {**module.GROUPS, "paths": module.Paths, "workers": module.Worker}
    return {name: {field.name for field in fields(cls)} for name, cls in groups.items()}


def key_items() -> dict[str, set[str]]:
    """Return the keys that mosaicd.toml(5) defines for each group."""
    found: dict[str, set[str]] = {}
    for heading, names in manual.items("mosaicd.toml.5").items():
        group = re.match(r"\W*(\w+)(\.\w+)?\W*$", heading.replace("\\&", ""))
        if "[" in heading and group:
            found[group[1]] = {name for name in names if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    return found


def test_the_manual_has_exactly_these_pages() -> None:
    """PAGES lists all pages of man/, so every page is checked."""
    assert {page.name for page in manual.pages()} == set(PAGES)


@page_ids
def test_mandoc_has_no_warning(page: Path) -> None:
    """`mandoc -T lint -W warning` prints nothing."""
    argv = [manual.need("mandoc"), "-T", "lint", "-W", "warning", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@page_ids
def test_groff_has_no_warning(page: Path) -> None:
    """`groff -ww` formats the page for a terminal without a warning."""
    argv = [manual.need("groff"), "-ww", "-mandoc", "-Tutf8", "-z", str(page)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


@page_ids
def test_references_to_other_pages_exist(page: Path) -> None:
    """Every `.Xr` to a page of this project has an existing page."""
    named = re.findall(r"\bXr (mosaic\S*) (\d)", page.read_text(encoding="utf-8"))
    assert {f"{name}.{section}" for name, section in named} <= set(PAGES)


@pytest.mark.parametrize("verb", VERBS)
def test_every_flag_of_a_verb_is_in_the_manual(verb: str) -> None:
    """The section of a verb in mosaicctl(1) has all its flags."""
    shared = options(client_parser())
    assert options(verbs()[verb]) - shared <= manual.flags(verb_section(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_the_manual_has_no_unknown_flag_of_a_verb(verb: str) -> None:
    """The section of a verb has only flags that the verb accepts."""
    known = options(verbs()[verb]) | options(client_parser()) | OTHER_PROGRAMS_FLAGS
    assert manual.long_flags(verb_section(verb)) <= known


def test_the_manual_has_a_section_for_each_verb_only() -> None:
    """The section VERBS (or COMMANDS) has one subsection for each verb, and no other."""
    headings = re.findall(r"^\.S([hs]) (.*)$", manual.source("mosaicctl.1"), re.MULTILINE)
    inside, found = False, set()
    for level, heading in headings:
        if level == "h":
            inside = heading.strip('"') in ("VERBS", "COMMANDS")
        elif inside:
            found.add(heading.split()[0])
    assert found == set(verbs())


def test_the_table_of_verbs_equals_the_parsers() -> None:
    """Each verb of the table has a parser, and each parser is in the table."""
    assert set(verbs()) == set(VERBS)


def test_shared_flags_are_in_the_manual() -> None:
    """mosaicctl(1) has the flags that all verbs share."""
    assert options(client_parser()) <= manual.flags(manual.rendered("mosaicctl.1"))


def test_exit_codes_are_in_the_manual() -> None:
    """mosaicctl(1) lists every exit code for scripts."""
    section = manual.sections("mosaicctl.1")["EXIT STATUS"]
    assert set("0 2 3 4 5 6 69 124 125 127 130".split()) <= set(re.findall(r"\d+", section))


def test_the_daemons_flags_are_in_the_manual() -> None:
    """mosaicd(8) and `mosaicd --help` have the same flags."""
    parser: argparse.ArgumentParser = import_module("mosaicd.__main__").build_parser()
    text = manual.rendered("mosaicd.8")
    assert options(parser) <= manual.flags(text)
    headings = manual.sections("mosaicd.8")
    own = "".join(headings.get(heading, "") for heading in ("SYNOPSIS", "DESCRIPTION", "OPTIONS"))
    assert manual.long_flags(own) <= options(parser) | {"--help", "--user"}


@pytest.mark.parametrize("group", sorted(settings_groups()))
def test_the_manual_has_exactly_the_settings(group: str) -> None:
    """mosaicd.toml(5) has an item for each key of a group, and no other."""
    assert key_items().get(group) == settings_groups()[group]


def test_the_manual_has_exactly_the_groups_of_settings() -> None:
    """mosaicd.toml(5) describes each group, and no other."""
    assert set(key_items()) == set(settings_groups())


def shown_forms(number: float) -> set[str]:
    """Return the forms in which the manual may write a number: plain, or in KiB, MiB or GiB."""
    forms = {f"{number:g}", str(number)}
    for unit in (1 << 10, 1 << 20, 1 << 30):
        if isinstance(number, int) and number >= unit and number % unit == 0:
            forms.add(str(number // unit))
    return forms


def test_defaults_are_in_the_manual() -> None:
    """The section of a group has the default number of each setting."""
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


def test_the_manual_has_exactly_the_methods() -> None:
    """mosaic-protocol(7) has each method and notification of the tables, and no other."""
    module: Any = import_module("mosaicd.protocol.methods")
    known = set(module.METHODS) | set(module.NOTIFICATIONS)
    nouns = "|".join(sorted({name.split(".")[0] for name in known}))
    text = manual.rendered("mosaic-protocol.7")
    assert set(re.findall(rf"(?<![\w./-])(?:{nouns})\.[a-z]+\b(?![./])", text)) == known


def test_errors_are_in_the_manual() -> None:
    """mosaic-protocol(7) has code and name of every error."""
    errors: Any = import_module("mosaicd.protocol.errors")
    text = manual.rendered("mosaic-protocol.7").replace("\u2212", "-")
    kinds = [errors.MosaicError, *errors.MosaicError.__subclasses__()]
    missing = [k.name for k in kinds[1:] if k.name not in text or str(k.code).lstrip("-") not in text]
    assert not missing


def test_run_directory_names_are_in_the_manual() -> None:
    """mosaic-rundir(5) has every name of a file or directory in the code."""
    rundir: Any = import_module("mosaicd.protocol.rundir")
    names = {value for key, value in vars(rundir).items() if key.isupper() and isinstance(value, str)}
    text = manual.rendered("mosaic-rundir.5")
    assert not [name for name in names if name not in text]


def test_the_readme_lists_every_verb() -> None:
    """The table of verbs in README.md is complete."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [verb for verb in verbs() if f"`{verb}`" not in text]


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md"])
def test_files_and_links_in_the_documents_exist(document: str) -> None:
    """Each file that a document mentions, by its path or the end of it, and each link target exists."""
    text = (ROOT / document).read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)`", text)
    files = [str(path.relative_to(ROOT)) for path in python_files()]
    assert not [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)]
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert not [link for link in links if not (ROOT / link).exists()]


def test_flags_finds_flags_and_no_parts_of_words() -> None:
    """flags() finds short and long flags, but not a dash inside a word."""
    text = "     -c, --cpus N   well-known x--y --dry-run"
    assert manual.flags(text) == {"-c", "--cpus", "--dry-run"}
