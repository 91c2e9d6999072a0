"""Recovery: what a new daemon does before it answers clients, and what works without a daemon.

Owns the opening of a registry that is lost or behind, reading the run directories for it, reconciling rows
with run directories, the slots of quarantined runs, and `mosaicd --check` and `--restore`.  The core decides
what the files mean; the store writes.
"""
