"""A simulation of routing: the strategies of ``proxy`` against seeded traces on a simulated clock.

    scenarios ──► trace ──► engine ──► measures ──► report, bars, plots
                              │ │
                    policies ─┘ └─ world: what the members are really like; the oracle reads it

Five words. A **scenario** is a story (an outage, a price change) with the rates it is told at; a **cell** is
one rate and number of replicas of it. A **trace** is a cell with a seed: members, arrivals and the luck each
request would have at each member. A **policy** picks members; there is one object per replica, and it knows
only what its replica saw. A **run** is one policy on one trace.

Scenarios come in two halves: on the ``tuned`` one (those of ``scenarios``, and half of ``families``)
constants are chosen, the ``held-out`` one is looked at afterwards.

The traces, the oracle and the baselines are frozen: a strategy is tuned against them, never they for a
strategy.
"""
