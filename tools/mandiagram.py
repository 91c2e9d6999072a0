"""Generate parts of the manual: the state diagram of mosaicd(8) and the errors of mosaic-protocol(7).

    tools/mandiagram.py            write both pages
    tools/mandiagram.py --check    write nothing; exit 1 and name the pages that are out of date

A generated part is between two comment lines, `BEGIN name` and `END name`.
"""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mosaicd.core import fsm  # noqa: E402
from mosaicd.protocol import errors  # noqa: E402

Page = Callable[[], str]


def state_diagram() -> str:
    """Return the diagram of the lifecycle table; without the module that draws it, a list of transitions."""
    if importlib.util.find_spec("mosaicd.core.diagram"):
        drawn = importlib.import_module("mosaicd.core.diagram")
        return _literal(drawn.text())
    lines = []
    for place, row in fsm.TABLE.items():
        targets: dict[str, list[str]] = {}
        for kind, target in row.items():
            if target is not place:
                targets.setdefault(target, []).append(kind)
        lines += [f"{place:<8} -> {target:<8}  {', '.join(kinds)}" for target, kinds in targets.items()]
    return _literal("\n".join(lines))


def error_rows() -> str:
    """Return one row for each error: name, code, exit code of the client, meaning."""
    rows = []
    for code, cls in errors.ERRORS.items():
        meaning = (cls.__doc__ or "").strip().splitlines()[0]
        rows.append(f".It Li {cls.name} Ta \\{code} Ta {errors.EXIT_CODES.get(cls.name, 125)} Ta {meaning}")
    return "\n".join(rows) + "\n"


#: (page, name of the part) -> the function that generates it.
PLACES: dict[tuple[str, str], Page] = {
    ("mosaicd.8", "state diagram"): state_diagram,
    ("mosaic-protocol.7", "errors"): error_rows,
}


def _literal(text: str) -> str:
    escaped = text.rstrip("\n").replace("\\", "\\e").replace("-", "\\-")
    lines = (line.rstrip() for line in escaped.splitlines())
    shielded = ("\\&" + line if line[:1] in (".", "'") else line for line in lines)
    return ".Bd -literal -offset indent\n" + "\n".join(shielded) + "\n.Ed\n"


def filled(page: str, text: str) -> str:
    """Return the source of a page with its parts generated; raise ValueError if a part is missing."""
    for (name, place), make in PLACES.items():
        if name != page:
            continue
        pattern = re.compile(rf'(^\.\\" BEGIN {place}.*\n)(?:.*\n)*?(^\.\\" END {place})', re.MULTILINE)
        if not pattern.search(text):
            raise ValueError(f"{page} has no part named {place}")
        made = make()
        text = pattern.sub(lambda found, made=made: found[1] + made + found[2], text)  # type: ignore[misc]
    return text


def main(arguments: list[str]) -> int:
    """Write or check every page with a generated part."""
    stale = []
    for page in sorted({page for page, _ in PLACES}):
        path = ROOT / "man" / page
        before = path.read_text(encoding="utf-8")
        after = filled(page, before)
        if after != before:
            stale.append(page)
            if "--check" not in arguments:
                path.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{page} {'is out of date: run tools/mandiagram.py' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
