"""The built-in simulated provider: an OpenAI- and Anthropic-compatible server with made-up answers.

profile
    Pace, length and words of one simulated model.
turn
    One answer of a simulated model, before it is written in the shape of an API.

Imports no other package; server and cli start it. ``turns``, ``text_apis``, ``number_apis`` and ``profiles``
are pure.

Where to change what: an endpoint is in ``server``; its shape in ``text_apis`` or ``number_apis``; how fast
and how much a model writes in ``profiles``.
"""
