"""The wire side: accept, frame, authorise, decode, dispatch; one file a verb.

server (accept, in-flight caps) -> connection (frame, back-pressure) -> turns (whose line is next) ->
router (role, decode, deadline, errors) -> a handler.  Nothing below knows JSON-RPC.
"""
