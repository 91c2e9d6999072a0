"""One file for each verb of the wire: check, record, return a view.

A module has the name of its verb and handles one method, or a pair (`pin` and `unpin`).  A handler records
what is asked and returns what is then true; the dispatcher carries it out.  `rpc.handlers` says which
function handles which method.
"""
