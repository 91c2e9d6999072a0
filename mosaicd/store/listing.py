"""Build the SELECT for a page of runs from its filters.

Every value is a bound parameter; the SQL text contains only words of this module.  Pages follow the order of
submission, so they stay correct while runs are added.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from mosaicd.protocol.faults import Faults, invalid
from mosaicd.protocol.messages import ListRuns
from mosaicd.protocol.states import LEGACY_OUTCOMES, LEGACY_STATES, Outcome, State, parse_state

Condition = tuple[str, list[Any]]

_PINNED = "EXISTS (SELECT 1 FROM pins WHERE pins.run_id = runs.run_id) AS pinned"
_ENDED = f"run_id, name, owner_uid, owner, outcome, created_at, finished_at, {_PINNED}"


def page_query(filters: ListRuns, owner_uid: int | None, after: str | None, limit: int) -> Condition:
    """Return SQL and values; InvalidParams that names every unknown word."""
    parts = [*_conditions(filters, owner_uid), *_cursor_condition(after, filters.newest_first)]
    where = f"WHERE {' AND '.join(sql for sql, _ in parts)} " if parts else ""
    order = "DESC" if filters.newest_first else "ASC"
    values = [value for _, given in parts for value in given]
    return f"SELECT * FROM runs {where}ORDER BY n {order} LIMIT ?", [*values, limit]


def ended_query(filters: ListRuns, owner_uid: int | None) -> Condition:
    """Return SQL and values that select ended runs for retention; InvalidParams as `page_query`."""
    parts = list(_conditions(replace(filters, live=False), owner_uid))
    where = " AND ".join(sql for sql, _ in parts)
    values = [value for _, given in parts for value in given]
    return f"SELECT {_ENDED} FROM runs WHERE {where} ORDER BY finished_at, n", values


def _conditions(filters: ListRuns, owner_uid: int | None) -> Iterator[Condition]:
    is_live = filters.live or _are_live(filters.state or ())
    plain = {
        # `+` prevents the index on the owner: the index of the few live runs is faster
        ("+owner_uid = ?" if is_live else "owner_uid = ?"): owner_uid,
        "owner = ?": filters.user,
        ("name GLOB ?" if _is_pattern(filters.name) else "name = ?"): _globbed(filters.name),
        "created_at >= ?": filters.since,
    }
    yield from ((sql, [value]) for sql, value in plain.items() if value is not None)
    if is_live:
        yield "state <> 'TERM'", []
    if filters.live is False:
        yield "state = 'TERM'", []
    for label, value in (filters.label or {}).items():
        yield "EXISTS (SELECT 1 FROM json_each(body, '$.labels') WHERE key = ? AND value = ?)", [label, value]
    yield from _state_conditions(filters)


def _is_pattern(name: str | None) -> bool:
    return name is not None and ("*" in name or "?" in name)


def _globbed(name: str | None) -> str | None:
    """Return the pattern for GLOB with `[` escaped: only `*` and `?` are special in a name filter."""
    return name.replace("[", "[[]") if name is not None and _is_pattern(name) else name


def _are_live(words: Sequence[str]) -> bool:
    """Return whether these words name live states only (`_state_conditions` refuses unknown words)."""
    return bool(words) and all(
        LEGACY_STATES.get(word.lower(), State.TERM) is not State.TERM for word in words
    )


def _state_conditions(filters: ListRuns) -> Iterator[Condition]:
    """Yield the conditions for state and outcome; a legacy state word may also name an outcome."""
    faults = Faults()
    alternatives: list[Condition] = []
    for index, word in enumerate(filters.state or ()):
        try:
            state: State | None = parse_state(word)
        except ValueError as error:
            faults.add(("state", index), str(error))
            continue
        outcome = LEGACY_OUTCOMES.get(word.lower())
        alternatives.append(("outcome = ?", [outcome]) if outcome else ("state = ?", [state]))
    for index, word in enumerate(filters.outcome or ()):
        if word not in frozenset(Outcome):
            rule = f"{word!r} is not an outcome; use one of {', '.join(Outcome)}"
            faults.add(("outcome", index), rule)
    faults.refuse()
    if filters.state is not None:
        joined = " OR ".join(sql for sql, _ in alternatives) or "0"
        yield f"({joined})", [value for _, given in alternatives for value in given]
    if filters.outcome is not None:
        yield f"outcome IN ({', '.join('?' * len(filters.outcome))})", list(filters.outcome)


def _cursor_condition(after: str | None, newest_first: bool) -> Iterator[Condition]:
    if after is None:
        return
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise invalid("cursor", "use a cursor that run.list returned")
    yield ("n < ?" if newest_first else "n > ?"), [int(after)]
