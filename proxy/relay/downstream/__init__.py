"""Towards clients: their connections, and the gateway that they share.

connection
    One client's connection, and what its client gets; its bytes are read by ``wire.request_reader``.
gateway
    What all connections of a process share: configuration, limits, the tick.
load shedding
    Answering requests with 503 because more come than can be served.

Imports exchange, upstream and all pure packages. asyncio; compiled where it is on the path of every request.

Where to change what: how many clients may connect is in ``connection_limits``; what the gateway answers by
itself (models, health) in ``own_responses``, what it asks the control plane for in ``own_figures``; when
requests are shed in ``load_shed``.
"""
