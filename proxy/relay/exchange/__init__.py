"""One request and its response, from the head to the last byte.

exchange
    One client request in full; it decides what the client gets.
attempt
    One try at one deployment.
commit point
    The first body byte sent to the client. After it nothing can be tried again.
detached client
    Stands in for a client that has left while the response is read to its end and billed.
completion
    The end of a request: its ledger line is written before the last bytes go out.

Imports upstream and all pure packages. asyncio; compiled.

Where to change what: what happens after which event is the table in ``states``; what follows a failed attempt
is in ``follow`` (the rules in ``routing.failover``), a second one beside it in ``hedge``; what it means
for breakers and log is in ``failures``; what a request is charged in ``charge``; the headers added to a
response in ``response_headers`` (those that name its model, in ``context``), and what a page's script may
read of them in ``access.cors``.
"""
