"""Log records come from the catalogue; only debug lines are free text; all entries and fields are used."""

import ast
import string

from mosaicd.log import ENTRIES
from tests.contract.sources import Module, modules, parse

_FREE_TEXT = frozenset("info warning error critical exception fatal log".split())


def free_texts(module: Module) -> list[str]:
    """Return the calls in `module` that log free text above level debug."""
    return [
        f"{module.where(node.lineno)}: {ast.unparse(node.func)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _FREE_TEXT
        and ast.unparse(node.func.value).split(".")[-1] in ("log", "logger", "logging")
    ]


def uses(module: Module) -> list[tuple[str, ast.Call | None, int]]:
    """Return the name of each entry in `module`, with its call of log.event, or None outside of one."""
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
    """Return the calls of log.event that lack a field of the sentence; a call with ** is accepted."""
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
    """Records from level info on are entries of the catalogue, with a code and a reviewed sentence."""
    assert not [fault for module in product() for fault in free_texts(module)]


def test_every_entry_is_used() -> None:
    """The code logs each entry of the catalogue."""
    used = {name for module in modules("mosaicd") for name, _, _ in uses(module) if name.isupper()}
    assert {entry.name for entry in ENTRIES} == used


def test_every_field_of_a_sentence_is_given() -> None:
    """Each call of log.event has all fields of its entry's sentence."""
    assert not [fault for module in product() for fault in missing_fields(module)]


def test_free_text_is_reported() -> None:
    """free_texts reports a warning with free text, and no debug line."""
    assert free_texts(parse("mosaicd.x", "import logging\nlogging.getLogger(1)\nlogger.warning('x')"))
    assert not free_texts(parse("mosaicd.x", "logger.debug('x')"))


def test_a_missing_field_is_reported() -> None:
    """missing_fields reports a call without a field of its sentence."""
    text = "log.event(Catalogue.RUN_ENDED, run_id=1)"
    assert missing_fields(parse("mosaicd.x", text)) == ["mosaicd/x.py:1: RUN_ENDED without outcome"]
