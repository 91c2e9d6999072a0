"""One file for each verb of the wire: check, record, return a view.

A module has the name of its verb and handles one method, or a pair (`pin` and `unpin`).  A handler records
the request and returns the run as it is then; the dispatcher carries the request out.  `rpc.handlers` has the
table of methods and handlers.
"""
