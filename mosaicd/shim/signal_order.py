"""The order of signals in the grace period of a stop: which processes get a signal now.

A program that saves at TERM may need its children for that, so a signal goes from the top down.  While the
leader lives, it alone gets the signal.  After its end, the members whose parent is no member are next, and so
on after each end.  Each process, by pid and start time, gets each signal once.

A shell runs a trap only after its foreground child has ended, so the shell and its foreground children get
the signal together, the shell first: it must not start the next command of a script.  A child that the shell
starts later gets nothing, because a trap may have started it to save something.  A filter such as `tee`, with
a pipe as its input, ends with the processes that write into the pipe; it is left until the last round.

A process that ignores the signal gets TERM instead, and so does a shell instead of INT and QUIT: it catches
or ignores these while it waits, and continues with its next command if its child has caught the signal.

In the last round, near the end of the grace period, all processes get TERM.  Pure: `traits_of` returns what
/proc shows of a process.
"""

import signal
from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from mosaicd.procfs import Process

#: A process within a boot: pid and start time.
Identity = tuple[int, int]
#: The signals that each process got.
Sent = Mapping[Identity, Set[int]]

_LAST_ROUND_MOST_S = 10.0
#: A non-interactive shell has its background children ignore these signals.
_KEYBOARD = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGQUIT - 1)


class Traits(NamedTuple):
    """Properties of a process: `ignored` has a bit for each signal that it ignores."""

    is_shell: bool = False
    is_filter: bool = False
    ignored: int = 0


def identity(process: Process) -> Identity:
    """Return the identity of a process within a boot."""
    return process.pid, process.start_ticks


def last_round_s(grace_s: float) -> float:
    """Return the rest of the grace period at which all processes get TERM, in seconds."""
    return min(grace_s / 2, _LAST_ROUND_MOST_S)


def is_done(process: Process, sent: Sent, number: int) -> bool:
    """Return whether a process gets the signal `number` no more: it got it, or TERM."""
    had = sent.get(identity(process), frozenset())
    return number in had or signal.SIGTERM in had


def next_receivers(
    members: Sequence[Process], leader: Process | None, sent: Sent, number: signal.Signals, *,
    to_all: bool, with_foreground: bool, traits_of: Callable[[Process], Traits],
) -> list[tuple[Process, signal.Signals]]:  # fmt: skip
    """Return the processes that get a signal now, in this order, each with its signal: `number` or TERM.

    `leader` is None if it has ended.  `to_all`: this is the last round, or the signal goes to the tree at
    once.  `with_foreground`: the foreground children of a shell get the signal with it.
    """
    waiting = {p.pid: p for p in members if not is_done(p, sent, number)}
    if to_all:
        receivers = list(waiting.values())
    else:
        first = _first(members, waiting, leader, traits_of)
        receivers = _with_foreground(first, waiting, traits_of) if with_foreground else first
    if number == signal.SIGTERM:
        return [(process, number) for process in receivers]
    return [(process, _signal_for(traits_of(process), number)) for process in receivers]


def receivers_again(
    members: Sequence[Process], sent: Sent, number: signal.Signals, *, traits_of: Callable[[Process], Traits]
) -> list[tuple[Process, signal.Signals]]:
    """Return the processes that got a signal before and now get another one, each with its signal."""
    again = [p for p in members if identity(p) in sent and not is_done(p, sent, number)]
    return [(process, _signal_for(traits_of(process), number)) for process in again]


def _signal_for(traits: Traits, number: signal.Signals) -> signal.Signals:
    """Return the signal for a process: TERM if it does not end by `number` as a program does."""
    is_ignored = bool(traits.ignored & 1 << (number - 1))
    is_keyboard = bool(_KEYBOARD & 1 << (number - 1))
    return signal.SIGTERM if is_ignored or (traits.is_shell and is_keyboard) else number


def _first(
    members: Sequence[Process], waiting: Mapping[int, Process], leader: Process | None,
    traits_of: Callable[[Process], Traits],
) -> list[Process]:  # fmt: skip
    """Return the leader, or if it has ended, the waiting members without a parent in the tree."""
    if leader is not None:
        return [leader] if leader.pid in waiting else []
    pids = {process.pid for process in members}
    return [p for p in waiting.values() if p.ppid not in pids and not traits_of(p).is_filter]


def _with_foreground(
    first: list[Process], waiting: Mapping[int, Process], traits_of: Callable[[Process], Traits]
) -> list[Process]:
    """Return the processes `first`, and the foreground children of the shells among them, also in levels."""
    children: dict[int, list[Process]] = {}
    for process in waiting.values():
        children.setdefault(process.ppid, []).append(process)
    found: dict[int, Process] = {}
    while first:
        process = first.pop(0)
        found[process.pid] = process
        first += [p for p in _foreground(process, children, traits_of) if p.pid not in found]
    return list(found.values())


def _foreground(
    process: Process, children: Mapping[int, list[Process]], traits_of: Callable[[Process], Traits]
) -> list[Process]:
    """Return the children that a shell waits for, without filters; none if the process is no shell."""
    of_process = children.get(process.pid)
    if not of_process:
        return []
    traits = traits_of(process)
    if not traits.is_shell:
        return []
    background = _KEYBOARD & ~traits.ignored  # a signal that the shell itself ignores says nothing
    looked_at = [(child, traits_of(child)) for child in of_process]
    return [child for child, own in looked_at if not own.is_filter and not own.ignored & background]
