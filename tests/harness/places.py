"""Paths in the checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Programs that a test submits as runs.
PROGRAMS = ROOT / "tests/daemon/programs"
