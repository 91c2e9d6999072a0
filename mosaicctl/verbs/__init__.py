"""One file for each verb of the command line: its options (`arguments`) and its action (`execute`).

`cli.VERBS` is the table of verbs.  A command line imports the module of its own verb and no other, so a verb
may import modules that no other verb needs.
"""
