"""The launcher removes the control groups of an ended attempt, and keeps groups that a shim will use."""

import os
from pathlib import Path

from mosaicd.launcher.cgroup_sweeper import CgroupSweeper
from mosaicd.shim.cgroup import V2
from mosaicd.shim.run_cgroup import CgroupRoot, name_of

RUN_ID = "01J00000000000000000000000"


def make_groups(parent: Path, *attempts: int) -> None:
    for attempt in attempts:
        os.makedirs(parent / name_of(RUN_ID, attempt))


def test_end_of_an_attempt_keeps_the_groups_of_the_next_attempt(tmp_path: Path) -> None:
    """The end of attempt 1 removes only the groups of attempt 1; the empty groups of attempt 2 stay."""
    make_groups(tmp_path, 1, 2)
    assert CgroupSweeper(CgroupRoot(parents={V2: str(tmp_path)})).remove(name_of(RUN_ID, 1))
    assert os.listdir(tmp_path) == [name_of(RUN_ID, 2)]


def test_end_of_a_shim_keeps_the_groups_of_a_second_shim_of_the_attempt(tmp_path: Path) -> None:
    """After a repeated launch order, one shim exits while another shim of the attempt creates groups."""
    make_groups(tmp_path, 1)
    assert not CgroupSweeper(CgroupRoot(parents={"freezer": str(tmp_path)})).remove(name_of(RUN_ID, 1))
    assert os.listdir(tmp_path) == [name_of(RUN_ID, 1)]
