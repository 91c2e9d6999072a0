"""The wire side: accept, frame, authorise, decode, dispatch; one file for each verb.

A line goes through server (accept, limit), connection (frame, back-pressure), fair_queue (which connection is
next), router (role, decode, deadline, errors) and a handler in `verbs`.  Only these modules know JSON-RPC.
The room may import every room but shim, launcher, recovery and service.
"""
