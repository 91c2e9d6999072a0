"""The daemon logs by its catalogue: no free text but debug lines, no entry without use, no field left out."""

import ast
import string

from mosaicd.log import ENTRIES
from tests.contract.sources import Module, modules, parse

_FREE_TEXT = frozenset("info warning error critical exception fatal log".split())


def free_texts(module: Module) -> list[str]:
    """Say where `module` logs a sentence that is no entry of the catalogue."""
    return [
        f"{module.where(node.lineno)}: {ast.unparse(node.func)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _FREE_TEXT
        and ast.unparse(node.func.value).split(".")[-1] in ("log", "logger", "logging")
    ]


def uses(module: Module) -> list[tuple[str, ast.Call | None, int]]:
    """Return the name of each entry that `module` uses, with the call of log.event, if it is in one."""
    calls = {
        id(node.args[0]): node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] == "event"
    }
    return [
        (node.attr, calls.get(id(node)), node.lineno)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "Catalogue"
    ]


def missing_fields(module: Module) -> list[str]:
    """Say which calls of log.event leave out a field of the sentence; a call with ** may have it there."""
    sentences = {entry.name: entry.sentence for entry in ENTRIES}
    faults = []
    for name, call, line in uses(module):
        if call is None or any(keyword.arg is None for keyword in call.keywords):
            continue
        wanted = {field for _, field, _, _ in string.Formatter().parse(sentences[name]) if field}
        left_out = wanted - {keyword.arg for keyword in call.keywords}
        faults += [f"{module.where(line)}: {name} without {field}" for field in sorted(left_out)]
    return faults


def product() -> list[Module]:
    return [module for module in modules("mosaicd") if not module.name.startswith("mosaicd.log")]


def test_only_debug_lines_are_free_text() -> None:
    """What an operator reads is an entry of the catalogue: it has a code, and its sentence is reviewed."""
    assert not [fault for module in product() for fault in free_texts(module)]


def test_every_entry_is_used() -> None:
    """An entry that nothing logs is no promise."""
    used = {name for module in modules("mosaicd") for name, _, _ in uses(module) if name.isupper()}
    assert {entry.name for entry in ENTRIES} == used


def test_every_field_of_a_sentence_is_given() -> None:
    """A call of log.event gives each field that the sentence of its entry names."""
    assert not [fault for module in product() for fault in missing_fields(module)]


def test_free_text_is_seen() -> None:
    """The test of free text can fail; a debug line is none."""
    assert free_texts(parse("mosaicd.x", "import logging\nlogging.getLogger(1)\nlogger.warning('x')"))
    assert not free_texts(parse("mosaicd.x", "logger.debug('x')"))


def test_a_missing_field_is_seen() -> None:
    """The test of fields can fail."""
    text = "log.event(Catalogue.RUN_ENDED, run_id=1)"
    assert missing_fields(parse("mosaicd.x", text)) == ["mosaicd/x.py:1: RUN_ENDED without outcome"]
