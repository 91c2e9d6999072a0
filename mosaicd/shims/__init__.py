"""Shims: the daemon's side of the launcher and of every shim.

Owns the launcher process, the connections on which shims have registered, and the watch over silent shims.
It sends orders and notifications, and decides nothing about runs.
"""
