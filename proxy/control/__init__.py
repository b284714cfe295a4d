"""The control plane: everything beside the traffic.

reload
    Applying a new configuration while requests run.
key store
    The keys of a running gateway: in the database, in memory, and in every worker; ``group_store``: their
    groups.
usage index
    The totals of the ledger, kept up to date beside a running gateway.
own figures
    What a key may ask about itself, on the data plane.
alert
    A message to operators, by webhook.

``telemetry`` (metrics, traces, logs) is below, ``admin`` (the admin API and the dashboard) above. Imports
relay and everything below it. asyncio and aiohttp; interpreted.

Where to change what: what a reload does is in ``reload``; the causes of alerts in ``alerts``; repeated jobs
are made by ``periodic``; certificates of the listeners in ``certificates``.
"""
