"""routes.toml as values: read whole, checked, with every mistake and its place.

table
    A TOML table while it is read (``tables``): it takes keys, and collects mistakes.
mistake
    One thing that is wrong, with line and column; all are reported at once.
setting
    A field of the frozen dataclasses in ``settings``, with its default.

Imports wire, endpoints and errors. Pure; ``forwarding`` is compiled, the rest runs once a configuration.

Where to change what: a new setting is a field in ``settings`` and a line in ``service_tables``,
``usage_table`` or ``routing_tables``; how a value is written is in ``values``; what a reload reports is in
``changes``.
"""
