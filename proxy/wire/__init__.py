"""Bytes in, facts out: HTTP/1.1 heads and framing, JSON bodies and server-sent events, read without building
objects of them.

head
    The start line and header lines of a message, as bytes with their positions.
framing
    Where a message body ends: a length, chunks, or the close of the connection.
outline
    The top-level keys of a JSON text and where their values begin.
tail
    The last bytes of a response, kept so that usage and stream end can be read from them.

Imports errors and endpoints. Pure and compiled. Every other package but the simulator may import it.

Where to change what: which header lines pass is in ``header_lines``; what a body asks for (``max_tokens``,
``n``) in ``output_limits``; how a stream ends, or says that it broke, in ``stream_end`` and
``stream_errors``.
"""
