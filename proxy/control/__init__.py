"""The control plane: everything beside the traffic.

reload
    Taking on a new configuration while requests run.
key store
    The keys of a running gateway: in the database, in memory, and in every worker.
usage index
    The ledger's lines on their way into totals.
alert
    What operators are told of by webhook.

``telemetry`` (metrics, traces, logs) is below, ``admin`` (the admin API and the dashboard) above. Imports
relay and everything below it. asyncio and aiohttp; interpreted.

Where to change what: what a reload does is in ``reload``; what is alerted to in ``alerts``; certificates of
the listeners in ``certificates``.
"""
