"""The comparison: gateways as reverse proxies in front of one mock provider.

scenarios.py and bodies.py say what is sent, specs.py reads targets.toml, targets.py and upstream.py start
processes, measure.py takes one measurement, rounds.py goes round the targets. figures.py is arithmetic on
results; report.py (of tables.py and cells.py) and plots.py show them.
"""
