"""The socket and JSON-RPC: accept, frame, decode, authorise, dispatch; `verbs` has one file for each verb.

A line goes through `server` (accept, limit), `connection` (frame, back-pressure), `fair_queue` (choose the
next connection), `router` (params, deadline, role, errors) and a handler in `verbs`.  Only these modules know
JSON-RPC.
"""
