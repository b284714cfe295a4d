"""TokenHub: a self-hosted gateway for LLM APIs that streams bodies straight through.

Five words that the rest of the package uses without explaining them:

deployment
    A model at a provider. What a request is finally sent to.
pool
    The deployments one request may go to, and the strategy that picks among them.
exchange
    One client request in full, from its head to its last answer byte.
attempt
    One try of an exchange at one deployment.
commit point
    The first body byte sent to the client. Behind it nothing can be tried again.
"""

__version__ = "0.1.0"
