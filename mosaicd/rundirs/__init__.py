"""Run directories: `runs/ID` of the state directory.

Owns the daemon's files in them, their removal, and the safe reading of the files that a shim writes and a
submitter owns.  It does not decide what the files mean.
"""
