"""The registry: rows, ledger, slots and pins in one SQLite file, with one writer and readers apart.

Owns the file, its schema and migrations, every SQL statement, its backups, its replacement when it is lost,
and the transaction that recovers runs.  It decides no transition: it stores what the core has folded.
"""
