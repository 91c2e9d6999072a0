"""Host: the daemon's place on its machine.

Owns the locks that keep a second daemon out, the service manager's protocol, the replacement of the running
program, and the identity of peers.  It knows nothing of the queue or of processes of runs.
"""
