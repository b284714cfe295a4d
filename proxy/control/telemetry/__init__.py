"""Metrics, traces and logs: what the gateway says of itself to machines.

rate
    What was counted in the last seconds, for the live view.
span
    A request or an attempt in a trace.

Imports relay and everything below it, and no other part of control. Interpreted.

Where to change what: a metric's name and help are in ``metrics``; the content of a span in ``spans``; the
form of log lines in ``logs``.
"""
