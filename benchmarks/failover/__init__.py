"""Failing over, live: the installed program before providers that fail in each of 16 ways.

kinds.py has the rows: a fault, the way to it, and what is wanted. provider.py is the scripted provider, and
client.py asks and says what it has seen. cell.py plays all rows against one gateway and holds its ledger to
them. waits.py measures how long clients wait at a member that hangs, and what hedges cost in calm weather.
"""
