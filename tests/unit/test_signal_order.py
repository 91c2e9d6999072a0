"""The order of signals in the grace period: which processes get the signal now."""

import signal

import pytest

from mosaicd.procfs import Process
from mosaicd.shim.signal_order import (
    Identity,
    Traits,
    identity,
    last_round_s,
    next_receivers,
    receivers_again,
)

INT, QUIT, TERM, USR1 = signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1
SHELL = Traits(is_shell=True)
FILTER = Traits(is_filter=True)
BACKGROUND = Traits(ignored=1 << (INT - 1) | 1 << (QUIT - 1))
SHIM = 1


def process(pid: int, ppid: int = SHIM, start_ticks: int = 7) -> Process:
    return Process(pid, ppid, pid, pid, "S", start_ticks)


class Tree:
    """A process tree: pid -> parent, and the traits of those that are no plain program."""

    def __init__(self, parents: dict[int, int], traits: dict[int, Traits] | None = None) -> None:
        self.members = {pid: process(pid, ppid) for pid, ppid in parents.items()}
        self.traits = traits or {}
        self.sent: dict[Identity, set[int]] = {}

    def end(self, *pids: int) -> None:
        """End processes; the shim becomes the parent of their children."""
        for pid in pids:
            del self.members[pid]
        for member in self.members.values():
            if member.ppid not in self.members:
                self.members[member.pid] = member._replace(ppid=SHIM)

    def term(
        self, leader: int | None = None, *, to_all: bool = False, with_foreground: bool = True
    ) -> list[int]:
        """Return the pids that get TERM now, and note that they got it."""
        found = self.signals(leader, TERM, to_all=to_all, with_foreground=with_foreground)
        assert {number for _, number in found} <= {TERM}
        return [pid for pid, _ in found]

    def signals(
        self, leader: int | None, number: signal.Signals, *, to_all: bool = False,
        with_foreground: bool = True,
    ) -> list[tuple[int, int]]:  # fmt: skip
        """Return the pids that get a signal now, each with its signal, and note that they got it."""
        found = next_receivers(
            list(self.members.values()), self.members[leader] if leader else None, self.sent, number,
            to_all=to_all, with_foreground=with_foreground,
            traits_of=self.traits_of,
        )  # fmt: skip
        return self._note(found)

    def again(self, number: signal.Signals) -> list[tuple[int, int]]:
        """Return the pids that get another signal, each with its signal, and note that they got it."""
        members = list(self.members.values())
        return self._note(receivers_again(members, self.sent, number, traits_of=self.traits_of))

    def traits_of(self, process: Process) -> Traits:
        return self.traits.get(process.pid, Traits())

    def _note(self, found: list[tuple[Process, signal.Signals]]) -> list[tuple[int, int]]:
        for receiver, number in found:
            self.sent.setdefault(identity(receiver), set()).add(number)
        return [(receiver.pid, number) for receiver, number in found]


def test_the_leader_alone_gets_the_signal_while_it_lives() -> None:
    """Its children and its orphans get nothing, and it gets the signal once."""
    tree = Tree({10: SHIM, 11: 10, 12: 11, 13: SHIM})
    assert tree.term(10) == [10]
    assert tree.term(10) == []


def test_after_the_leader_the_members_without_a_parent_in_the_tree_are_next() -> None:
    """Each end makes the children of that process the next ones; each process gets the signal once."""
    tree = Tree({10: SHIM, 11: 10, 12: 11, 13: 12, 20: SHIM})
    tree.term(10)
    tree.end(10)
    assert tree.term() == [11, 20]
    assert tree.term() == []
    tree.end(11)
    assert tree.term() == [12]
    tree.end(12, 20)
    assert tree.term() == [13]


def test_a_process_with_a_used_pid_and_another_start_time_is_another_process() -> None:
    """A process is known by its pid and its start time."""
    tree = Tree({10: SHIM})
    assert tree.term() == [10]
    tree.members[10] = process(10, start_ticks=8)
    assert tree.term() == [10]


def test_a_shell_gets_the_signal_before_its_foreground_children() -> None:
    """Shells and their foreground children get it together, also in levels; grandchildren do not."""
    tree = Tree({10: SHIM, 11: 10, 12: 11, 13: 12}, {10: SHELL, 11: SHELL})
    assert tree.term(10) == [10, 11, 12]
    assert tree.term(10) == []


@pytest.mark.parametrize("number", [INT, QUIT])
def test_a_background_child_of_a_shell_waits(number: int) -> None:
    """A child that ignores INT or QUIT runs in the background of its shell; it is next after that."""
    tree = Tree({10: SHIM, 11: 10, 12: 10}, {10: SHELL, 11: Traits(ignored=1 << (number - 1))})
    assert tree.term(10) == [10, 12]
    tree.end(10)
    assert tree.term() == [11]


def test_a_shell_in_the_background_has_foreground_children() -> None:
    """Children inherit the signals that their shell ignores, so these do not count."""
    tree = Tree({10: SHIM, 11: 10}, {10: BACKGROUND._replace(is_shell=True), 11: BACKGROUND})
    assert tree.term(10) == [10, 11]


def test_a_child_that_a_shell_starts_after_the_signal_gets_nothing() -> None:
    """A trap may have started it to save something; the last round reaches it."""
    tree = Tree({10: SHIM, 11: 10}, {10: SHELL})
    tree.term(10)
    tree.end(11)
    tree.members[12] = process(12, 10)
    assert tree.term(10) == []
    assert tree.term(10, to_all=True) == [12]


def test_a_filter_ends_with_its_input() -> None:
    """A filter at the end of a pipe gets the signal in the last round only, also without a parent."""
    tree = Tree({10: SHIM, 11: 10, 12: 10}, {10: SHELL, 12: FILTER})
    assert tree.term(10) == [10, 11]
    tree.end(10)
    assert tree.term() == []
    tree.end(11)
    assert tree.term() == []
    assert tree.term(to_all=True) == [12]


def test_the_last_round_reaches_every_process_once() -> None:
    """All processes that did not get TERM get it; the others get nothing a second time."""
    tree = Tree({10: SHIM, 11: 10, 12: 11})
    tree.term(10)
    assert tree.term(10, to_all=True) == [11, 12]
    assert tree.term(10, to_all=True) == []


def test_the_last_round_sends_term_after_another_signal() -> None:
    """A process that got INT gets TERM too."""
    tree = Tree({10: SHIM, 11: 10})
    assert tree.signals(10, INT) == [(10, INT)]
    assert tree.signals(10, TERM, to_all=True) == [(10, TERM), (11, TERM)]


def test_a_shell_gets_term_instead_of_a_signal_of_the_keyboard() -> None:
    """It would continue with its next command if its child has caught INT or QUIT."""
    for number in (INT, QUIT):
        tree = Tree({10: SHIM, 11: 10}, {10: SHELL})
        assert tree.signals(10, number) == [(10, TERM), (11, number)]
        assert tree.signals(10, number) == []
    assert Tree({10: SHIM, 11: 10}, {10: SHELL}).signals(10, USR1) == [(10, USR1), (11, USR1)]


def test_a_process_that_ignores_the_signal_gets_term() -> None:
    """A child in the background of a shell ignores INT."""
    tree = Tree({10: SHIM}, {10: BACKGROUND})
    assert tree.signals(None, INT) == [(10, TERM)]


def test_another_signal_goes_to_the_same_processes() -> None:
    """A second stop with another signal reaches those that got the first; a process that got TERM is done."""
    tree = Tree({10: SHIM, 11: 10, 12: 11}, {10: SHELL})
    tree.signals(10, INT)
    assert tree.again(USR1) == [(11, USR1)]
    assert tree.again(TERM) == [(11, TERM)]
    assert tree.again(INT) == []


def test_the_leader_alone_can_be_asked_for() -> None:
    """Without the foreground children, a shell gets the signal alone."""
    tree = Tree({10: SHIM, 11: 10}, {10: SHELL})
    assert tree.term(10, with_foreground=False) == [10]
    tree.end(10)
    assert tree.term(with_foreground=False) == [11]


def test_an_unknown_leader_counts_as_ended() -> None:
    """In the tree of a dead shim the leader may be unknown: then the members without a parent are first."""
    tree = Tree({10: 500, 11: 10, 12: 500})
    assert tree.term() == [10, 12]


@pytest.mark.parametrize(("grace_s", "rest_s"), [(0.0, 0.0), (1.0, 0.5), (20.0, 10.0), (600.0, 10.0)])
def test_the_last_round_begins_at_half_of_the_grace_and_at_most_10_s_before_the_end(
    grace_s: float, rest_s: float
) -> None:
    """The rest of the grace period is min(grace / 2, 10 s)."""
    assert last_round_s(grace_s) == rest_s
