"""The data plane: a client's request goes to a provider, and its response comes back.

Three packages, each importing only those before it: ``upstream`` (connections to providers), ``exchange``
(one request and its response), ``downstream`` (connections of clients). They run on asyncio, and what
is on the path of every request is compiled.

A first reading: ``downstream/connection.py``, ``exchange/exchange.py``, ``exchange/attempt.py``,
``upstream/connection.py``, in this order; beside them the table in ``exchange/states.py``.
"""
