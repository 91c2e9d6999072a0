"""The wire side: accept, frame, decode, authorise, dispatch; one file for each verb.

A line goes through server (accept, limit), connection (frame, back-pressure), fair_queue (which connection is
next), router (params, deadline, role, errors) and a handler in `verbs`.  Only these modules know JSON-RPC.
"""
