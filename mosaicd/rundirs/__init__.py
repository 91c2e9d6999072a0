"""Run directories as the daemon sees them.

Owns every file of the daemon's in `runs/ID`, and reads what submitters own with distrust: relative to a
directory descriptor, through no link, never blocking.  What the files mean is not decided here.  It may
import the protocol, `procfs` and `safe_files`.
"""
