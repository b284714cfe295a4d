"""A soak: the installed program under hours of mixed traffic, and a provider that fails in every way.

plans.py draws how each request ends, by its number alone, so that client and provider agree without a word.
provider.py is the provider, gateway.py starts both and governs the gateway, client.py sends and judges,
traffic.py is the mix, watch.py ends a run that hangs. books.py adds up, and run.py holds it all to its bars.
"""
