"""The launcher never removes control groups that a shim is about to use."""

import os
from pathlib import Path

from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import CgroupRoot, name_of

RUN_ID = "01J00000000000000000000000"


def make(parent: Path, *attempts: int) -> None:
    for attempt in attempts:
        os.makedirs(parent / name_of(RUN_ID, attempt))


def test_the_groups_of_the_next_attempt_stay(tmp_path: Path) -> None:
    """The end of attempt 1 removes only its groups: those of attempt 2 are empty until its fork."""
    make(tmp_path, 1, 2)
    assert CgroupSweeper(CgroupRoot(parents={V2: str(tmp_path)})).remove(name_of(RUN_ID, 1))
    assert os.listdir(tmp_path) == [name_of(RUN_ID, 2)]


def test_a_new_group_stays_when_another_shim_of_its_attempt_has_ended(tmp_path: Path) -> None:
    """A launch order may be repeated: one shim of an attempt leaves while another makes its groups."""
    make(tmp_path, 1)
    assert not CgroupSweeper(CgroupRoot(parents={"freezer": str(tmp_path)})).remove(name_of(RUN_ID, 1))
    assert os.listdir(tmp_path) == [name_of(RUN_ID, 1)]
