"""The processes and how they are put together: one process, or a supervisor with workers.

data plane
    Listeners, gateway and tick: what serves clients.
control plane
    Admin API, storage and watchers: what serves the operator.
worker
    A process with a data plane; the supervisor has the control plane.

Imports everything but cli. Interpreted, but for ``file_lock``.

Where to change what: signals and exit codes are in ``run``; messages to workers in ``messages``; starting and
replacing workers in ``worker_pool``; opening sockets in ``listeners``.
"""
