"""Everything that is written to disk: the ledger's files, and the database of keys, totals and learned
figures.

ledger
    Files of lines, one per finished request, written before the client sees the end of its response.
ingest
    Adding new lines of these files to the totals in SQLite, each exactly once.

Imports access, usage, wire and errors. Not pure; ``ledger_files`` is compiled, as it is on the data path.

Where to change what: the database's version and its migrations are in ``schema_version``; a question to the
totals is in ``usage_totals``, at other prices in ``recount``, what limits begin with in ``window_totals``;
the tags that totals have are in ``tag_table``.
"""
