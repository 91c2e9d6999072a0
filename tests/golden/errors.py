"""The sentences of the daemon's errors, read from the source: what follows `raise` and what faults say.

A sentence stands here as the source has it: a value in braces is filled in when the error is raised.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator

from mosaicd.protocol.errors import ERRORS
from tests.contract.sources import modules

_HEAD = """\
The sentences of the daemon's errors, under the class of the error (see mosaic-protocol(7) for the names).
Values stand in braces, as in the source.  Written by `make golden`.
"""

#: Modules whose sentences say why a run waits or stays, what is reserved, and how a registry was recovered.
_OF_REASONS = (
    "mosaicd.core.explain", "mosaicd.core.view", "mosaicd.core.deadlines", "mosaicd.core.slots",
    "mosaicd.dispatch", "mosaicd.store.recovery_report", "mosaicd.rpc.verbs.prune",
)  # fmt: skip

#: Errors that end the daemon, or keep it from starting: mosaicd prints their sentence.
_OF_THE_DAEMON = ("CannotServe", "AlreadyRunning", "UnusableRegistry", "NewerRegistry", "DamagedRegistry")
#: Errors inside the daemon, whose sentence becomes the cause of a run, or a warning.
_OF_RUNS = ("LaunchFailed", "NoProcess", "BadRow", "NotTrusted")


def text() -> str:
    """Return the text of error_messages.txt."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules("mosaicd"):
        for name, sentence in _sentences(module.tree):
            found[name].add(sentence)
    classes = [cls.__name__ for cls in ERRORS.values()]
    blocks = [_HEAD]
    for name in (*classes, *_OF_THE_DAEMON, *_OF_RUNS, "Fault"):
        lines = sorted(found.get(name, ()), key=str.lower)
        blocks.append(f"\n{name}\n" + "".join(f"  {line}\n" for line in lines))
    reasons = [module.tree for module in modules("mosaicd") if module.name.startswith(_OF_REASONS)]
    lines = sorted({line for tree in reasons for line in _reasons(tree)}, key=str.lower)
    blocks.append(
        "\nReasons of runs, facts and changes of `mosaicctl why`, warnings of `mosaicctl health`\n"
        + "".join(f"  {line}\n" for line in lines)
    )
    return "".join(blocks)


def _reasons(tree: ast.AST) -> Iterator[str]:
    """Yield every text of two words or more in a module that is not a docstring or a part of another text."""
    inner = {
        id(part)
        for node in ast.walk(tree)
        for part in ast.iter_child_nodes(node)
        if isinstance(node, ast.Expr | ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in inner:
            sentence = _template(node)
            if " " in sentence.strip():
                yield sentence


def _sentences(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the class and the sentence of each error that the code makes, and each rule of a fault."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func).split(".")[-1]
        if name in ("Fault", "add") and len(node.args) == 2:
            name, place = "Fault", node.args[1]
        elif node.args and name[:1].isupper():
            place = node.args[-1] if name == "NotTrusted" else node.args[0]
        else:
            continue
        sentence = _template(place)
        if sentence and (name != "Fault" or " " in sentence):
            yield name, sentence


def _part(node: ast.expr) -> str:
    return "{" + ast.unparse(node.value) + "}" if isinstance(node, ast.FormattedValue) else _template(node)


def _template(node: ast.expr) -> str:
    """Return a string, or an f-string with its values in braces; empty for any other expression."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(map(_part, values))
        case ast.IfExp(body=body, orelse=orelse):
            return " | ".join(filter(None, (_template(body), _template(orelse))))
        case _:
            return ""
