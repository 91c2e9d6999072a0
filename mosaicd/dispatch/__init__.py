"""Dispatch: carry out the action that the daemon owes each live run.

Owns the scheduler, launch and teardown orders, deadlines, and the end of a process tree.  `core.fsm` decides
all transitions.  Shims and the launcher start and stop processes; dispatch reaches them through `shims`.
"""
