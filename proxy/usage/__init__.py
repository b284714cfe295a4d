"""Tokens and money: what a response says it used, what that costs, and what requests add up to.

usage
    Token counts of one response: input, cached, output and so on (``tokens``).
price
    Integers of pico-USD a token, so that sums are exact (``pricing``).
ledger line
    One finished request as a line of JSON (``line``); ``tally`` adds lines up, ``recent`` keeps the latest.
tag
    A word such as ``team=search`` that a request carries, by which totals are told apart (``tags``).
counters
    What a process counts for metrics.

Imports config, wire, endpoints and errors. Pure and compiled. Deployments and everything above use it.

Where to change what: a vendor's name for a count is in ``tokens``; what a picture or sound counts in
``media_tokens``; a new metric starts in ``counters``; what tags may be, and how many, in ``tags``.
"""
