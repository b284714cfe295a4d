"""Towards providers: connections, the pool that keeps them, and how they are opened.

connection
    One HTTP/1.1 connection to a provider. At most one attempt uses it at a time.
pool
    The connections to one provider: which to use again, to keep or to close.
dial
    Opening a connection: name, address, TCP, TLS; or the reason why it could not be opened.

Imports wire, config, usage, deployments and errors. asyncio; compiled but for dialling and TLS.

Where to change what: what a request to a provider carries is in ``provider``; time-outs of dialling and the
choice of an address in ``dial`` and ``resolve``; TLS in ``tls``.
"""
