"""The gateway's own keys: their limits, and which requests they admit.

key
    A secret that a client sends, with its settings; only its hash is kept.
grant
    What the key of a request allows: models, limits, its account.
group
    Keys that share limits, besides each key's own.
account
    What a key or a group has used (``accounts``: the memory), and its limits, exact over all workers of the
    machine (``limits``).
admission
    Holding a request against its key: admitted with a permit, or refused with the reason.

Imports routing, deployments, usage, config, wire, endpoints and errors. Pure and compiled.

Where to change what: a new limit is in ``key`` (``KeyLimits``, for groups too), ``limits`` and
``limit_errors``; the most a request may use is worked out in ``admission``; which models a key sees in
``grants`` and ``model_list``; the tags of a request are made in ``tagging``, and what a key is told of its
limits in ``standing``.
"""
