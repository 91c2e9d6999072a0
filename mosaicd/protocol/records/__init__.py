"""Records: what crosses between daemon, launcher, shim and run directory; each one is defined once.

The writer and the reader of a record use the same class: its fields are the keys of the JSON object.
`record` is the mechanism; `orders` holds the two orders that a shim is forked for.  Standard library only:
the launcher and every shim import this package.  The client does not, because `dataclasses` loads slowly.
"""
