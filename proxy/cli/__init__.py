"""The ``tokenhub`` command.

source
    The origin of keys and totals: a running gateway, or its database.

Imports everything, each command only what it needs and when it runs, so that ``--help`` is quick.
Interpreted.

Where to change what: the commands and their exit codes are in ``main``, options shared by them in ``parser``;
each command has a module of its name; tables and colours are in ``tables`` and ``terminal``.
"""
