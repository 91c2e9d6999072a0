"""Clearing away after an attempt never touches control groups that a shim is about to fill."""

import os
from pathlib import Path

from mosaicd.launcher.cgroup_sweeper import Cells
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import Site, name_of

RUN_ID = "01J00000000000000000000000"


def make(home: Path, *attempts: int) -> None:
    for attempt in attempts:
        os.makedirs(home / name_of(RUN_ID, attempt))


def test_the_next_attempts_cell_stays(tmp_path: Path) -> None:
    """What is removed for attempt 1 is attempt 1's: attempt 2's is empty because its worker is being made."""
    make(tmp_path, 1, 2)
    assert Cells(Site(homes={V2: str(tmp_path)})).remove(name_of(RUN_ID, 1))
    assert os.listdir(tmp_path) == [name_of(RUN_ID, 2)]


def test_a_fresh_cell_stays_though_a_shim_of_its_attempt_ended(tmp_path: Path) -> None:
    """A launch order may be repeated: one shim of an attempt leaves, another is just making its groups."""
    make(tmp_path, 1)
    assert not Cells(Site(homes={"freezer": str(tmp_path)})).remove(name_of(RUN_ID, 1))
    assert os.listdir(tmp_path) == [name_of(RUN_ID, 1)]
