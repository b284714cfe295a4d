"""The choice of the deployment that a request goes to.

catalog
    All names a client may use, and the pools they stand for.
pool
    The deployments that one request may go to, and the strategy that picks among them.
candidate
    A deployment of the pool that is able, large enough and healthy for this request.
failover
    The next deployment after one that failed, as long as the retry budget allows it.

Imports deployments, usage, config, wire, endpoints and errors. Pure (time and chance are arguments) and
compiled.

Where to change what: a strategy is a module of its own, listed in ``strategy``, ``config.settings``,
``cli.parser``, ``docs/generate.py`` and the dashboard's ``explain.js``; why a deployment is skipped
is in ``candidates``; the request's own wishes (``X-Inferoute-*``) are read in ``request_options``.
"""
