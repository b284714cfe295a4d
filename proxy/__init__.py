"""TokenHub: a self-hosted gateway for LLM APIs that streams bodies straight through.

Five words that the rest of the package uses without explaining them:

deployment
    A model at a provider. What a request is finally sent to.
pool
    The deployments one request may go to, and the strategy that picks among them.
exchange
    One client request in full, from its head to its last response byte.
attempt
    One try of an exchange at one deployment.
commit point
    The first body byte sent to the client. After it nothing can be tried again.

The packages, lowest first; each imports only those before it (setup.cfg has the rule, a test holds it):

errors, endpoints
    What can go wrong with a request; the API's endpoints.
wire, config, usage, deployments, routing, access
    The core. Pure: time, chance and bytes are arguments, so it is tested without a clock or a socket.
storage
    What is written to disk.
relay
    The data plane: upstream, exchange, downstream.
control
    The control plane: telemetry, reload, keys, alerts, the admin API.
server
    Processes, and how the planes are put together in them.
cli
    The command.

Beside them stands the simulator, which imports none of them.
"""

__version__ = "0.1.0"
