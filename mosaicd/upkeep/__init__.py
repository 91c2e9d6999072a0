"""Upkeep: work that the daemon does in the background.

Owns retention, the removal of temporary directories of ended runs, inspection for `doctor`, worker discovery
and the journal lines for committed events.  Nothing here starts or ends a run.
"""
