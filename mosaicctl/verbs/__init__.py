"""One file for each verb of the command line: its options (`arguments`) and what it does (`execute`).

`cli.VERBS` is the table of verbs.  A command line imports the module of its own verb and no other, so a verb
may import what only it needs.
"""
