"""What a run left behind, as text: processes when its program ended by itself, and files in /dev/shm."""

from mosaicctl.sizes import counted, size
from mosaicd.protocol import Json

_MOST_FILES = 10
#: States of a run whose program has ended and whose processes are being ended.
_ENDING = ("RDY", "EXEC", "PAUSE", "FAULT")
_ADVICE = (
    "to keep a program in the foreground, "
    "leave out the '&', end the script with 'wait', or start it with 'exec'"
)


def left_text(run: Json) -> str:
    """Return `2 processes were still running and were ended`; an empty text if the run left none behind.

    In the grace period: `2 processes are still running and are being ended`.
    """
    count = run.get("left_processes")
    if not count:
        return ""
    if run.get("state") in _ENDING:
        verb, suffix = "is" if count == 1 else "are", " being"
    else:
        verb, suffix = "was" if count == 1 else "were", ""
    return f"{counted(count, 'process', 'processes')} {verb} still running and {verb}{suffix} ended"


def left_advice(run: Json) -> str:
    """Return how to keep such processes in the foreground; empty unless the run is a command that succeeded.

    Note: the script of a run that failed ended before its last line, so this advice does not help.
    """
    is_advised = run.get("left_processes") and run.get("kind") == "command"
    return _ADVICE if is_advised and run.get("outcome") == "succeeded" else ""


def left_sentence(run: Json) -> str:
    """Return `left_text` with the advice, if there is one."""
    return "; ".join(text for text in (left_text(run), left_advice(run)) if text)


def leftover_facts(run: Json, leftovers: Json | None) -> list[tuple[str, object]]:
    """Return names and values for `show`: the processes, the files in /dev/shm, and the removed ones."""
    found = leftovers or {}
    return [
        ("left running", left_sentence(run)),
        *_process_facts(run.get("left_processes") or 0, found.get("processes") or []),
        *_shared_facts(found),
        ("removed", _removed_text(found.get("removed_shared_memory") or {})),
    ]


def _process_facts(count: int, processes: list[Json]) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [(f"  pid {one.get('pid')}", one.get("command")) for one in processes]
    if processes and count > len(processes):
        rows.append(("  ...", f"and {count - len(processes)} more"))
    return rows


def _shared_facts(found: Json) -> list[tuple[str, object]]:
    count, files = found.get("shared_memory_files") or 0, found.get("shared_memory") or []
    if not count:
        return []
    total = size(found.get("shared_memory_bytes") or 0)
    text = f"{counted(count, 'file')}, {total}; appeared during the run, not removed"
    shown = [(f"  {size(file.get('bytes') or 0)}", file.get("path")) for file in files[:_MOST_FILES]]
    more = [("  ...", f"and {count - len(shown)} more")] if count > len(shown) else []
    return [("in /dev/shm", text), *shown, *more]


def _removed_text(removed: Json) -> str:
    """Return the removed files of /dev/shm, and the failed removals; empty if there are none."""
    texts = []
    if removed.get("files"):
        files, total = counted(removed["files"], "file"), size(removed.get("bytes") or 0)
        texts.append(f"{files}, {total}, in /dev/shm with the run's id in the name")
    if removed.get("failed"):
        texts.append(f"{counted(removed['failed'], 'file')} in /dev/shm could not be removed")
    return "; ".join(texts)
