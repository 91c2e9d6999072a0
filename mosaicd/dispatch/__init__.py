"""Dispatch: what the daemon owes each live run, and carrying it out.

Owns the queue at work, launch and teardown orders, deadlines, and the end of a process tree.  It decides no
transition (`core.fsm` does) and touches no process (`shims` speaks to those who do).  It may import the core,
the store, run directories and `shims`.
"""
