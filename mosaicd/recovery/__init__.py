"""Recovery: what a new daemon does before it answers, and what works without a daemon.

Owns reconciling rows with run directories, rebuilding a registry that was lost or is behind, the slots of
quarantined runs, and `mosaicd --check` and `--restore`.  The core decides what the files mean; the store
writes.  It may import everything but `dispatch` and `rpc`.
"""
