"""Deployments: a model at a provider, and what is known of it while the gateway runs.

row
    The live figures of one deployment at one endpoint, streamed or plain.
breaker
    Ejects a deployment after strikes, and lets one trial request at a time bring it back.
strike
    A failure that counts towards opening a breaker.
sample
    One observation, shared with the other workers through memory.

Imports usage, config, wire, endpoints and errors. Pure (time and chance are arguments) and compiled.

Where to change what: expected latency is in ``latency_estimate`` (the prompt's part of it in ``size_effect``,
that of the output in ``pace``), expected cost in ``cost_estimate``, the share of failures in ``reliability``;
when a second member is asked beside a silent one in ``escape``; when a
deployment is ejected in ``breaker`` and ``strikes``; what one attempt teaches in ``record``.
"""
