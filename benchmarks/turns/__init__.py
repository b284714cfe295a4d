"""For how long single requests, connections and responses hold the gateway's event loop.

cases.py has the requests, answers.py the scripted provider, setup.py the gateway's configuration. gateway.py
is the gateway with its measurement, and processes.py starts it, the provider, and the client who waits.
"""
