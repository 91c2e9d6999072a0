"""The CPUs and GPU slots that a run is granted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaicd.core.slots import Capacity, Grant, check_possible, choose, earmark
from mosaicd.protocol.errors import CapacityImpossible


@st.composite
def capacities(draw: st.DrawFn) -> Capacity:
    gpus = draw(st.integers(0, 4))
    used = draw(st.frozensets(st.integers(0, 5)))
    return Capacity(draw(st.integers(1, 8)), draw(st.integers(0, 10)), gpus, used)


def test_gpu_slots_are_given_lowest_first() -> None:
    """A grant has the lowest free slots, in ascending order."""
    capacity = Capacity(8, 0, 6, frozenset({0, 2}))
    assert choose(2, 3, True, capacity) == Grant(2, (1, 3, 4))


def test_a_request_above_the_machine_is_granted_all_its_cpus() -> None:
    """A request for more CPUs than the machine has waits until all are free."""
    assert choose(64, 0, False, Capacity(4)) == Grant(4)
    assert choose(64, 0, False, Capacity(4, 1)) is None


def test_optional_gpus_are_reduced_only_to_the_number_in_the_machine() -> None:
    """With `mandatory: false`, a run waits for as many GPUs as the machine can give."""
    assert choose(1, 4, False, Capacity(4, 0, 2)) == Grant(1, (0, 1))
    assert choose(1, 4, False, Capacity(4, 0, 0)) == Grant(1)
    assert choose(1, 2, False, Capacity(4, 0, 2, frozenset({0}))) is None


def test_mandatory_gpus_beyond_the_machine_are_refused() -> None:
    """The error has the requested and the total number."""
    with pytest.raises(CapacityImpossible, match=r"3 GPUs.*has 2") as caught:
        check_possible(3, True, Capacity(4, 0, 2))
    assert caught.value.data == {"requested": 3, "total": 2}
    check_possible(2, True, Capacity(4, 0, 2, frozenset({0, 1})))
    check_possible(3, False, Capacity(4, 0, 2))


def test_a_mandatory_request_is_not_reduced_if_the_machine_lost_gpus() -> None:
    """The run waits and reserves nothing."""
    capacity = Capacity(4, 0, 1)
    assert choose(1, 2, True, capacity) is None
    assert earmark(1, 2, True, capacity) == Grant(0)


def test_free_numbers_are_never_negative() -> None:
    """If more CPUs and slots are held than the machine has, none is free."""
    capacity = Capacity(2, 5, 1, frozenset({0, 3}))
    assert (capacity.cpus_free, capacity.gpus_free) == (0, ())


@given(capacities(), st.integers(1, 12), st.integers(0, 6), st.booleans())
def test_a_grant_takes_and_returns_exactly_its_free_slots(
    capacity: Capacity, cpus: int, gpus: int, mandatory: bool
) -> None:
    """A grant has only free CPUs and slots, in the due number, and its return restores the capacity."""
    grant = choose(cpus, gpus, mandatory, capacity)
    if grant is None:
        aside = earmark(cpus, gpus, mandatory, capacity)
        assert aside.cpus <= capacity.cpus_free and set(aside.slots) <= set(capacity.gpus_free)
        return
    assert grant.cpus == min(cpus, capacity.cpus_total) <= capacity.cpus_free
    assert len(grant.slots) == min(gpus, capacity.gpu_slots_total)
    assert set(grant.slots) <= set(capacity.gpus_free) and list(grant.slots) == sorted(grant.slots)
    assert capacity.less(grant).plus(grant) == capacity
