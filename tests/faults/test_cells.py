"""Clearing away after one attempt never touches the next one's control groups."""

import os
from pathlib import Path

from mosaicd.launcher.cells import Cells
from mosaicd.shim.cell import Site, name_of

RUN_ID = "01J00000000000000000000000"


def test_the_next_attempts_cell_stays(tmp_path: Path) -> None:
    """What is removed for attempt 1 is attempt 1's: attempt 2's is empty because its worker is being made."""
    home = tmp_path / "freezer"
    for attempt in (1, 2):
        os.makedirs(home / name_of(RUN_ID, attempt))
    site = Site(homes={"freezer": str(home)})
    assert Cells(site).remove(name_of(RUN_ID, 1))
    assert os.listdir(home) == [name_of(RUN_ID, 2)]
