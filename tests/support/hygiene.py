"""What a hostile client sends: what the gateway must refuse, and what it may take, in tables."""

from __future__ import annotations

BODY = b'{"model":"mock/m"}'
SENT = b'{"model":"m"}'  # what a provider gets of it
PATH = b"/v1/chat/completions"


def request(
    *lines: bytes, first: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"Host: g",
    body: bytes = BODY,
) -> bytes:  # fmt: skip
    """A request of these lines, as they are."""
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""]) + body


LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"12\r\n" + BODY + b"\r\n0\r\n\r\n"


def first(line: bytes) -> bytes:
    return request(LENGTH, first=line)


def field(*lines: bytes) -> bytes:
    return request(LENGTH, *lines)


def encoding(value: bytes, *more: bytes) -> bytes:
    return request(b"Transfer-Encoding:" + value, *more, body=CHUNKS)


def length(value: bytes) -> bytes:
    return request(b"Content-Length:" + value)


def chunks(wire: bytes) -> bytes:
    return request(CHUNKED, body=wire)


_MODEL = b"12\r\n" + BODY + b"\r\n"

# name -> what is sent. Each is answered by one error, and the connection closed.
REFUSED: dict[str, dict[str, bytes]] = {
    "framing": {
        "TE with a space before the colon": request(b"Transfer-Encoding : chunked", LENGTH),
        "TE with a tab before the colon": request(b"Transfer-Encoding\t: chunked", LENGTH),
        "TE with a vertical tab": encoding(b"\x0bchunked"),
        "TE with a form feed behind": encoding(b" chunked\x0c"),
        "TE with NBSP": encoding(b" \xa0chunked"),
        "TE with NBSP in UTF-8": encoding(b" chunked\xc2\xa0"),
        "TE with NUL": encoding(b" chunked\0"),
        "TE in quotes": encoding(b' "chunked"'),
        "TE with a parameter": encoding(b" chunked;q=1"),
        "chunked, identity": encoding(b" chunked, identity"),
        "identity, chunked": encoding(b" identity, chunked"),
        "comma before": encoding(b" ,chunked"),
        "comma behind": encoding(b" chunked,"),
        "xchunked": encoding(b" xchunked"),
        "chunkedx": encoding(b" chunkedx"),
        "chunk": encoding(b" chunk"),
        "TE folded": request(b"Transfer-Encoding:", b" chunked", body=CHUNKS),
        "TE folded with a tab": request(b"Transfer-Encoding: identity", b"\tchunked", body=CHUNKS),
        "TE after a bare LF": request(b"X: y\nTransfer-Encoding: chunked", LENGTH),
        "TE after a bare CR": request(b"X: y\rTransfer-Encoding: chunked", LENGTH),
        "TE after LF CR": request(b"X: y\n\rTransfer-Encoding: chunked", LENGTH),
        "TE, then other TE": encoding(b" chunked", b"Transfer-encoding: x"),
        "TE, then an empty TE": encoding(b" chunked", b"Transfer-Encoding:"),
        "underscore beside": request(b"Transfer_Encoding: chunked", b"Transfer-Encoding: x", LENGTH),
        "TE and CL in 1.0": request(
            CHUNKED, LENGTH, first=b"POST /v1/chat/completions HTTP/1.0", body=CHUNKS
        ),
        "upper-case TE and CL": request(b"TRANSFER-ENCODING: CHUNKED", LENGTH, body=CHUNKS),
        "CL and upper-case TE": request(LENGTH, b"TRANSFER-ENCODING: CHUNKED", body=CHUNKS),
        "CL and an empty TE": request(LENGTH, b"Transfer-Encoding:"),
        "CL 5 5": length(b" 5 5"),
        "CL 18,": length(b" 18,"),
        "CL of 20 digits": length(b" 18446744073709551634"),
        "CL of 30 zeros": length(b" " + b"0" * 28 + b"18"),
        "CL with a vertical tab": length(b"\x0b18"),
        "CL with NBSP": length(b"\xa018"),
        "CL with NUL": length(b" 18\0"),
        "CL 18.0": length(b" 18.0"),
        "CL 1e1": length(b" 1e1"),
        "CL with superscript": length(b" \xb2\xb2"),
        "CL folded": request(b"Content-Length: 1", b" 8"),
        "CL with a tab before the colon": request(b"Content-Length\t: 18"),
        "CL twice, the second empty": request(LENGTH, b"Content-Length:"),
    },
    "chunks": {
        "tab behind the size": chunks(b"12\t\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "0X": chunks(b"0X12\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "sixteen digits": chunks(b"0" * 14 + b"12\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "a size of 2**64": chunks(b"10000000000000012\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "LF ends the size": chunks(b"12\n" + BODY + b"\r\n0\r\n\r\n"),
        "CR ends the size": chunks(b"12\r" + BODY + b"\r\n0\r\n\r\n"),
        "LF in an extension": chunks(b"12;a\n" + BODY + b"\r\n0\r\n\r\n"),
        "CR in an extension": chunks(b"12;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "LF in a quoted extension": chunks(b'12;a="\n"\r\n' + BODY + b"\r\n0\r\n\r\n"),
        "CRLF in a quoted extension": chunks(b'12;a="\r\n"\r\n' + BODY + b"\r\n0\r\n\r\n"),
        "an open quote": chunks(b'12;a="x\r\n' + BODY + b"\r\n0\r\n\r\n"),
        "NUL in an extension": chunks(b"12;a=\0\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "an extension of 300 bytes": chunks(b"12;" + b"a" * 300 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "spaces in an extension": chunks(b"12; a = b\r\n" + BODY + b"\r\n0\r\n\r\n"),
        "two bytes for CRLF": chunks(b"12\r\n" + BODY + b"XX0\r\n\r\n"),
        "no CRLF behind the data": chunks(b"12\r\n" + BODY + b"0\r\n\r\n"),
        "a sign in the last size": chunks(_MODEL + b"-0\r\n\r\n"),
        "LF ends the last": chunks(_MODEL + b"0\n\n"),
        "LF ends the message": chunks(_MODEL + b"0\r\n\n"),
        "trailer TE": chunks(_MODEL + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "trailer CL": chunks(_MODEL + b"0\r\nContent-length: 5\r\n\r\n"),
        "trailer folded": chunks(_MODEL + b"0\r\nX: 1\r\n Content-Length: 5\r\n\r\n"),
        "trailer with a space": chunks(_MODEL + b"0\r\nX : 1\r\n\r\n"),
        "trailer with a bare CR": chunks(_MODEL + b"0\r\nX: 1\r2\r\n\r\n"),
        "trailer with NUL": chunks(_MODEL + b"0\r\nX: \0\r\n\r\n"),
        "trailers of 20 KB": chunks(_MODEL + b"0\r\n" + b"X: 1\r\n" * 3500 + b"\r\n"),
        "no final CRLF, and a request": chunks(_MODEL + b"0\r\n"),
    },
    "lines": {
        "NUL in a target": first(b"POST /v1/chat/completions\0x HTTP/1.1"),
        "NUL behind a name": field(b"X\0: 1"),
        "NUL in a value": field(b"X: \0"),
        "no name": field(b":"),
        "a space for a name": field(b" : x"),
        "a name in quotes": field(b'"X": 1'),
        "a slash in a name": field(b"X/Y: 1"),
        "UTF-8 in a name": field(b"\xc3\xa9: 1"),
        "ESC in a value": field(b"X: \x1b[2J"),
        "LF CR in a value": field(b"X: a\n\rb"),
        "CR CR LF": field(b"X: a\r"),
        "LF before the head": b"\n" + field(),
        "CRLF LF before the head": b"\r\n\n" + field(),
        "a space behind CRLF": b"\r\n " + field(),
        "a space before the first line": b" " + field(),
        "LF for CRLF": field().replace(b"\r\n", b"\n").replace(b"\n\n", b"\n\r\n\r\n", 1),
        "HTTP/1.1 twice": first(b"POST /v1/chat/completions HTTP/1.1 HTTP/1.1"),
        "HTTP/1.2": first(b"POST /v1/chat/completions HTTP/1.2"),
        "HTTP/01.1": first(b"POST /v1/chat/completions HTTP/01.1"),
        "HTTP/1.1x": first(b"POST /v1/chat/completions HTTP/1.1x"),
        "HTTP /1.1": first(b"POST /v1/chat/completions HTTP /1.1"),
        "ICE/1.1": first(b"POST /v1/chat/completions ICE/1.1"),
        "no version": first(b"POST /v1/chat/completions"),
        "three spaces": first(b"POST   /v1/chat/completions HTTP/1.1"),
        "a tab for a space": first(b"POST /v1/chat/completions\tHTTP/1.1"),
        "a vertical tab for a space": first(b"POST\x0b/v1/chat/completions HTTP/1.1"),
        "no space": first(b"POST/v1/chat/completions HTTP/1.1"),
        "method with a colon": first(b"X: POST /v1/chat/completions HTTP/1.1"),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        "SOCKS": b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00\r\n\r\n",
        "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + field(),
    },
    "targets": {
        "user name": first(b"POST http://u@g/v1/chat/completions HTTP/1.1"),
        "user name with a port": first(b"POST http://g:80@evil/v1/chat/completions HTTP/1.1"),
        "no scheme": first(b"POST g/v1/chat/completions HTTP/1.1"),
        "another scheme": first(b"POST file:///v1/chat/completions HTTP/1.1"),
        "authority": first(b"POST g:80 HTTP/1.1"),
        "CONNECT": first(b"CONNECT g:443 HTTP/1.1"),
        "fragment": first(b"POST /v1/chat/completions#/healthz HTTP/1.1"),
        "fragment in the query": first(b"POST /v1/chat/completions?a#b HTTP/1.1"),
        "a space in the query": first(b"POST /v1/chat/completions?a b HTTP/1.1"),
        "UTF-8": first("POST /v1/chät/completions HTTP/1.1".encode()),
        "star and more": first(b"POST */v1/chat/completions HTTP/1.1"),
        "query only": first(b"POST ?x HTTP/1.1"),
        "backslash first": first(b"POST \\v1\\chat\\completions HTTP/1.1"),
    },
    "encodings": {
        "gzip": field(b"Content-Encoding: gzip"),
        "in capitals": field(b"CONTENT-ENCODING: GZIP"),
        "twice": field(b"Content-Encoding: identity", b"Content-Encoding: gzip"),
        "a list": field(b"Content-Encoding: identity, br"),
        "with NBSP": field(b"Content-Encoding: \xa0identity"),
    },
    "hosts": {
        "none": request(LENGTH, host=b""),
        "three": field(b"Host: g", b"Host: g"),
        "a second in other case": field(b"hOsT: evil"),
        "with a space": request(LENGTH, host=b"Host: g evil"),
        "with a path": request(LENGTH, host=b"Host: g/x"),
        "with a query": request(LENGTH, host=b"Host: g?x"),
        "with a fragment": request(LENGTH, host=b"Host: g#x"),
        "with a user": request(LENGTH, host=b"Host: u@g"),
        "with a port that is none": request(LENGTH, host=b"Host: g:80x"),
        "with two ports": request(LENGTH, host=b"Host: g:80:81"),
        "with NUL": request(LENGTH, host=b"Host: g\0"),
        "folded": request(LENGTH, host=b"Host: g\r\n evil"),
        "with a backslash": request(LENGTH, host=b"Host: g\\evil"),
    },
}

# The last line before what a provider gets of every request: its own host and credentials, and no others.
OWN = (
    b"Accept-Encoding: identity", b"Authorization: Bearer k", b"Content-Type: application/json",
    b"Host: provider",
)  # fmt: skip


def sent(
    *lines: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", framing: bytes = b"Content-Length: 13"
) -> list[bytes]:
    """The lines a provider gets, in order of the alphabet."""
    return [line, *sorted((*OWN, *lines, framing))]


# name -> what is sent, and the lines of the provider's request; its body is always SENT.
TAKEN: dict[str, tuple[bytes, list[bytes]]] = {
    "plain": (field(), sent()),
    "a foreign host in the target": (
        first(b"POST http://evil.example/v1/chat/completions?a=b&beta=1 HTTP/1.1"),
        sent(line=b"POST /v1/chat/completions?beta=1 HTTP/1.1"),
    ),
    "https in the target": (first(b"POST HTTPS://evil:443/v1/chat/completions HTTP/1.1"), sent()),
    "a foreign host": (request(LENGTH, host=b"Host: evil.example"), sent()),
    "an empty host": (request(LENGTH, host=b"Host:"), sent()),
    "no host in 1.0": (request(LENGTH, first=b"POST /v1/chat/completions HTTP/1.0", host=b""), sent()),
    "without /v1": (first(b"POST /chat/completions HTTP/1.1"), sent()),
    "zeros before a length": (length(b" 0000000000000018"), sent()),
    "tabs around a length": (length(b"\t18\t"), sent()),
    "tabs around an encoding": (
        request(b"TRANSFER-ENCODING:\tChunked\t ", body=CHUNKS), sent(framing=CHUNKED),
    ),
    "zeros before a size": (
        chunks(b"000000000000012\r\n" + BODY + b"\r\n000\r\n\r\n"), sent(framing=CHUNKED),
    ),
    "extensions": (
        chunks(b'12;a;b=c;d="\\"\xff; x"\r\n' + BODY + b"\r\n0;last\r\n\r\n"), sent(framing=CHUNKED),
    ),
    "trailers": (
        chunks(_MODEL + b"0\r\nAuthorization: Bearer evil\r\nX-Inferoute-Strategy: no\r\nHost: evil\r\n\r\n"),
        sent(framing=CHUNKED),
    ),
    "a query of odd characters": (
        first(b"POST /v1/chat/completions?after=../..&b=%00%0d%0a;c&order=%00%0d%0a&limit=\\//x?y HTTP/1.1"),
        sent(line=b"POST /v1/chat/completions?after=../..&order=%00%0d%0a&limit=\\//x?y HTTP/1.1"),
    ),
    "a query of 20 KB": (
        first(b"POST /v1/chat/completions?after=" + b"q" * 20_000 + b"&" * 500 + b"q" * 5000 + b" HTTP/1.1"),
        sent(line=b"POST /v1/chat/completions?after=" + b"q" * 20_000 + b" HTTP/1.1"),
    ),
    "Connection names the framing": (
        field(b"Connection: Content-Length, Content-Type", b"Content-Type: application/json"), sent(),
    ),
    "Connection names the encoding": (
        request(CHUNKED, b"Connection: Transfer-Encoding", body=CHUNKS), sent(framing=CHUNKED),
    ),
    "Connection names what identifies": (
        field(
            b"Authorization: Bearer x", b"Connection: Authorization, Host, X-Inferoute-Strategy, X-Team",
            b"X-Inferoute-Strategy: latency", b"X-Team: a",
        ),
        sent(),
    ),
    "upgrade": (
        field(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
        sent(),
    ),
    "another method or path in a header": (
        field(
            b"X-HTTP-Method-Override: DELETE", b"X-HTTP-Method: DELETE", b"X-Method-Override: GET",
            b"X-Original-URL: /admin", b"X-Rewrite-URL: /admin", b"X-Override: a",
        ),
        sent(),
    ),
    "what is between the client and us": (
        field(
            b"X-Forwarded-Host: evil", b"Forwarded: for=1", b"X-Real-IP: 1", b"Cookie: a=b", b"TE: trailers",
            b"Trailer: X", b"Proxy-Connection: keep-alive", b"Keep-Alive: timeout=5", b"Via: 1.1 x",
            b"Proxy-Authorization: Basic eDp5", b"OpenAI-Organization: org", b"api-key: x",
        ),
        sent(),
    ),
    "names like ours": (
        field(b"X-Inferoute-Request-Id: evil", b"x-inferoute-provider: evil", b"X-Request-Id: theirs"),
        sent(b"X-Request-Id: theirs"),
    ),
    "names like the framing's": (
        field(b"Content-Length-X: 5", b"X-Content-Length: 7", b"Content_Length: 9", b"X-Session-Length: 7"),
        sent(b"X-Session-Length: 7"),
    ),
    "what no list has": (
        field(
            b"X-Portkey-Custom-Host: http://evil", b"X_Api_Key: evil", b"Referer: http://g",
            b"CF-Connecting-IP: 1", b"Sec-Fetch-Mode: cors", b"X-Anything: 1",
        ),
        sent(),
    ),
    "another type": (field(b"Content-Type: application/vnd.a+json; charset=\"UTF-8\""), sent()),
    "bytes in a value": (field(b"X-Title: \xff\xfe\xc2\xa0"), sent(b"X-Title: \xff\xfe\xc2\xa0")),
    "an empty value": (field(b"X-Title:", b"X-Title: "), sent(b"X-Title:", b"X-Title: ")),
    "empty lines first": (b"\r\n\r\n\r\n" + field(), sent()),
    "Expect in 1.0": (
        request(LENGTH, b"Expect: 100-continue", first=b"POST /v1/chat/completions HTTP/1.0"), sent(),
    ),
    "an Expect that is not known in 1.0": (
        request(LENGTH, b"Expect: tea", first=b"POST /v1/chat/completions HTTP/1.0"), sent(),
    ),
    "identity": (field(b"Content-Encoding: identity"), sent()),
}  # fmt: skip


def get(target: bytes, *lines: bytes, body: bytes = b"", method: bytes = b"GET") -> bytes:
    return request(*lines, first=b"%b %b HTTP/1.1" % (method, target), body=body)


# name -> what is sent, and the status. None of them is a request to a provider.
OWN: dict[str, tuple[bytes, int]] = {
    "GET with a body": (get(b"/healthz", LENGTH, body=BODY), 200),
    "GET of what is proxied, with a body": (get(PATH, LENGTH, body=BODY), 405),
    "GET with a broken body": (get(b"/healthz", CHUNKED, body=b"zz\r\n"), 200),
    "a method in a header": (get(PATH, LENGTH, b"X-HTTP-Method-Override: POST", body=BODY), 405),
    "a path in a header": (get(b"/healthz", LENGTH, b"X-Original-URL: " + PATH, body=BODY), 200),
    "lower case": (first(b"post /v1/chat/completions HTTP/1.1"), 405),
    "mixed case": (first(b"Post /v1/chat/completions HTTP/1.1"), 405),
    "TRACE": (get(PATH, method=b"TRACE"), 405),
    "CONNECT with a path": (get(PATH, method=b"CONNECT"), 405),
    "star": (get(b"*", method=b"OPTIONS"), 404),
    "PRI star": (get(b"*", method=b"PRI"), 404),
    "an Expect that is not known, to read": (get(b"/healthz", b"Expect: tea"), 417),
    "POST star": (first(b"POST * HTTP/1.1"), 404),
    "no path in an absolute target": (first(b"POST http://g HTTP/1.1"), 405),
    "two slashes first": (first(b"POST //v1/chat/completions HTTP/1.1"), 404),
    "two slashes": (first(b"POST /v1//chat/completions HTTP/1.1"), 404),
    "a slash at the end": (first(b"POST /v1/chat/completions/ HTTP/1.1"), 404),
    "a dot": (first(b"POST /v1/./chat/completions HTTP/1.1"), 404),
    "two dots": (first(b"POST /x/../v1/chat/completions HTTP/1.1"), 404),
    "two dots, escaped": (first(b"POST /x/%2e%2E/v1/chat/completions HTTP/1.1"), 404),
    "a slash, escaped": (first(b"POST /v1%2Fchat/completions HTTP/1.1"), 404),
    "a letter, escaped": (first(b"POST /v1/%63hat/completions HTTP/1.1"), 404),
    "NUL, escaped": (first(b"POST /v1/chat/completions%00 HTTP/1.1"), 404),
    "CRLF, escaped": (first(b"POST /v1/chat/completions%0d%0aX:y HTTP/1.1"), 404),
    "broken escapes": (first(b"POST /%zz% HTTP/1.1"), 404),
    "parameters": (first(b"POST /v1/chat/completions;x=y HTTP/1.1"), 404),
    "backslashes": (first(b"POST /v1\\chat\\completions HTTP/1.1"), 404),
    "other case": (first(b"POST /V1/chat/Completions HTTP/1.1"), 404),
    "a URL in a path": (first(b"POST /http://g/v1/chat/completions HTTP/1.1"), 404),
    "WebSocket": (
        get(
            b"/healthz", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ), 200,
    ),
    "h2c": (
        get(b"/healthz", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A"), 200,
    ),
    "a model with a line end": (get(b"/v1/models/%0d%0aSet-Cookie:x"), 404),
    "a model of broken UTF-8": (get(b"/v1/models/%ff%fe%ed%a0%80"), 404),
    "a model with dots": (get(b"/v1/models/../../healthz"), 404),
    "compressed": (
        request(LENGTH, b"Content-Encoding: gzip", first=b"POST /v1/nothing HTTP/1.1"), 404,
    ),
    "an Expect that is not known": (
        request(LENGTH, b"Expect: tea", first=b"POST /v1/nothing HTTP/1.1"), 404,
    ),
    "1.0, which nothing may follow": (request(first=b"GET /healthz HTTP/1.0", body=b""), 200),
    "1.0 that wants to be kept": (
        request(b"Connection: keep-alive", first=b"GET /healthz HTTP/1.0", body=b""), 200,
    ),
}  # fmt: skip


def answer(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK", body: bytes = b"{}") -> bytes:
    """What a provider sends."""
    return b"\r\n".join([status, b"Content-Type: application/json", *lines, b"", b""]) + body


_TWO = b"Content-Length: 2"
_INNER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Inferoute-Provider: evil\r\n\r\nevil"

# name -> what a provider sends that is no answer: the client gets an error of the gateway's own.
NO_ANSWERS: dict[str, bytes] = {
    "LF in a value": answer(_TWO, b"X: a\nSet-Cookie: evil"),
    "CR in a value": answer(_TWO, b"X: a\rSet-Cookie: evil"),
    "NUL in a value": answer(_TWO, b"X: a\0b"),
    "ESC in a value": answer(_TWO, b"X: \x1b[2J"),
    "LF in a name": answer(_TWO, b"X\nSet-Cookie: evil"),
    "NUL in a name": answer(_TWO, b"X\0: a"),
    "bytes in a name": answer(_TWO, b"X\xff: a"),
    "a space in a name": answer(_TWO, b"X Y: a"),
    "a space before the colon": answer(b"Content-Length : 2"),
    "folded": answer(_TWO, b"X: a", b" Set-Cookie: evil"),
    "folded with a tab": answer(_TWO, b"X: a", b"\tSet-Cookie: evil"),
    "a space first": answer(b" Content-Length: 2"),
    "no colon": answer(_TWO, b"Set-Cookie"),
    "no name": answer(_TWO, b": evil"),
    "LF for CRLF": answer(_TWO).replace(b"\r\n", b"\n") + b"\r\n\r\n",
    "CR in the reason": answer(_TWO, status=b"HTTP/1.1 200 OK\rSet-Cookie: evil"),
    "LF in the reason": answer(_TWO, status=b"HTTP/1.1 200 OK\nSet-Cookie: evil"),
    "NUL in the reason": answer(_TWO, status=b"HTTP/1.1 200 O\0K"),
    "ESC in the reason": answer(_TWO, status=b"HTTP/1.1 200 \x1b[2J"),
    "HTTP/2": answer(_TWO, status=b"HTTP/2 200"),
    "HTTP/1.2": answer(_TWO, status=b"HTTP/1.2 200 OK"),
    "HTTP/0.9": b"{}\r\n\r\n",
    "status 099": answer(_TWO, status=b"HTTP/1.1 099 X"),
    "status 1000": answer(_TWO, status=b"HTTP/1.1 1000 X"),
    "status 20": answer(_TWO, status=b"HTTP/1.1 20 OK"),
    "status -20": answer(_TWO, status=b"HTTP/1.1 -20 OK"),
    "status in other digits": answer(_TWO, status=b"HTTP/1.1 \xb2\xb2\xb2 OK"),
    "two spaces": answer(_TWO, status=b"HTTP/1.1  200 OK"),
    "a space first of all": b" " + answer(_TWO),
    "lengths that differ": answer(_TWO, b"Content-Length: 40", body=_INNER),
    "a length twice": answer(_TWO, _TWO),
    "a length list": answer(b"Content-Length: 2, 2"),
    "+2": answer(b"Content-Length: +2"),
    "0x2": answer(b"Content-Length: 0x2"),
    "a length of 20 digits": answer(b"Content-Length: 18446744073709551618"),
    "no length in it": answer(b"Content-Length:"),
    "length and chunks": answer(_TWO, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunks and length": answer(CHUNKED, _TWO, body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunked twice": answer(CHUNKED, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunked, identity": answer(b"Transfer-Encoding: chunked, identity", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "xchunked": answer(b"Transfer-Encoding: xchunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "a vertical tab": answer(b"Transfer-Encoding: \x0bchunked", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "chunks in 1.0": answer(CHUNKED, status=b"HTTP/1.0 200 OK", body=b"2\r\n{}\r\n0\r\n\r\n"),
    "another protocol": answer(b"Upgrade: evil", b"Connection: Upgrade", status=b"HTTP/1.1 101 X"),
    "interim answers for ever": b"HTTP/1.1 103 Early Hints\r\nLink: evil\r\n\r\n" * 100,
    "a head of 40 KB": answer(_TWO, b"X: " + b"a" * 40_000),
}

# name -> the lines of a provider's head, and those of them that a client gets, beside ours and the framing.
PASSES: dict[str, tuple[tuple[bytes, ...], tuple[bytes, ...]]] = {
    "what imitates ours": (
        (
            b"X-Inferoute-Provider: evil", b"x-inferoute-request-id: evil", b"X-INFEROUTE-Anything: evil",
            b"Access-Control-Allow-Origin: *", b"X: 1",
        ),
        (b"X: 1",),
    ),
    "what is between the provider and us": (
        (
            b"Connection: X-Internal, keep-alive", b"X-Internal: evil", b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: Basic", b"Trailer: X", b"Upgrade: h2c", b"X: 1",
        ),
        (b"X: 1",),
    ),
    "the rest": (
        (b"Set-Cookie: a=b; Path=/", b"Set-Cookie: c=d", b"X: \xff", b"X:", b"Location: http://evil/"),
        (b"Set-Cookie: a=b; Path=/", b"Set-Cookie: c=d", b"X: \xff", b"X:", b"Location: http://evil/"),
    ),
}  # fmt: skip

# What names of models are made of that do harm somewhere: in a header, a line, a cell, a label, a terminal.
NAMES = (
    "a\r\nSet-Cookie: evil", 'a\n\n{"forged":1}', "\u2028\u2029", "=1+1", "+1", "-1", "@SUM(A1)", "\t=1",
    '"} 1\nx{y="', "\x1b[2J\x07", "\0", "é\u202e", "\\", "<script>alert(1)</script>", "%s%n{0}", "a" * 200,
    "data: x\n\ndata: [DONE]",
)  # fmt: skip
# The same within JSON that no JSON value may be: half of a character that takes two.
HALF = b'{"model":"a\\ud800"}'
