"""The requests that are played: of the largest size that a limit lets in, or made to be slow to read."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, repeat

from turns.answers import ANSWERS
from turns.setup import ASKING, PATTERNS, TOKEN, Setup

_MIB = 1 << 20
_BODY = 64 * _MIB  # max_body
_HEAD = 32 << 10
_WAIT_S = 20.0

Make = Callable[[Setup, str], Iterable[bytes]]


@dataclass
class Case:
    """``make``: the request's bytes, given the header line of a credential, or b"" for none."""

    name: str
    what: str
    make: Make
    is_admin: bool = False
    has_token: bool = True
    wait_s: float = 0.0  # the work goes on behind the answer

    def play(self, setup: Setup) -> str:
        """Send it; returns the answer's status, or what else came."""
        line = ""
        if self.has_token:
            line = f"Authorization: Bearer {TOKEN if self.is_admin else setup.secrets[0]}\r\n"
        said = _exchange(setup.admin_port if self.is_admin else setup.port, self.make(setup, line))
        time.sleep(self.wait_s)
        return said


def _exchange(port: int, pieces: Iterable[bytes]) -> str:
    """Send ``pieces`` on a connection of their own, and read to its end; an empty piece: leave."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(_WAIT_S)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                if not piece:
                    return "left"
                sock.sendall(piece)
        begin, size = b"", 0
        try:
            while data := sock.recv(1 << 20):
                size += len(data)
                begin = (begin + data)[:12] if len(begin) < 12 else begin
        except TimeoutError:
            return f"no end after {_WAIT_S:g} s, {size} bytes"
        except ConnectionError:
            return f"reset after {size} bytes {begin[9:12].decode('latin-1')}"
        return f"{begin[9:12].decode('latin-1')}, {size} bytes" if begin else "closed"


def _head(method: str, target: str, line: str, *more: str) -> bytes:
    extra = "".join(f"{one}\r\n" for one in more)
    text = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{line}{extra}"
    return text.encode()


def _post(target: str, body: bytes | Callable[[Setup], bytes], *more: str, method: str = "POST") -> Make:
    def make(setup: Setup, line: str) -> Iterable[bytes]:
        made = body(setup) if callable(body) else body
        head = _head(method, target, line, "Content-Type: application/json", *more)
        return head + b"Content-Length: %d\r\n\r\n" % len(made), made

    return make


def _get(target: str, *more: str) -> Make:
    return lambda _, line: (_head("GET", target, line, *more) + b"\r\n",)


_CHAT = "/v1/chat/completions"


def _chat(body: Callable[[bytes], bytes], model: str = "pair", *more: str, path: str = _CHAT) -> Make:
    """``body``: made of the model's member, such as ``"model":"pair"``."""
    return _post(path, lambda _: body(b'"model":"%b"' % model.encode()), *more)


def _chunks(body: Callable[[bytes], bytes], size: int) -> Make:
    def make(_: Setup, line: str) -> Iterable[bytes]:
        whole = body(b'"model":"pair"')
        head = _head("POST", _CHAT, line, "Content-Type: application/json", "Transfer-Encoding: chunked")
        framed = [
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for piece in (whole[at : at + size] for at in range(0, len(whole), size))
        ]
        return head + b"\r\n", b"".join(framed) + b"0\r\n\r\n"

    return make


# Bodies: each takes the model's member and gives a whole body of a little less than max_body.
_SIZE = _BODY - 4096
_BODIES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "text": ("one long text", lambda m: b'{%b,"a":"%b"}' % (m, b"x" * _SIZE)),
    "text-first": ("the model behind one long text", lambda m: b'{"a":"%b",%b}' % (b"x" * _SIZE, m)),
    "image": (
        "one data URL",
        lambda m: (
            b'{%b,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}]}]}'
            % (m, b"iVBORw0K" * (_SIZE // 8))
        ),
    ),
    "images": (
        "many small data URLs",
        lambda m: b'{%b,"a":[%b""]}' % (m, b'"data:image/png;base64,AAAA",' * (_SIZE // 29)),
    ),
    "data-urls-cut": (
        "beginnings of data URLs",
        lambda m: b'{%b,"a":"%b"}' % (m, b";base64," * (_SIZE // 8)),
    ),
    "keys": ("many keys", lambda m: b'{%b,%b"b":0}' % (m, b'"a":0,' * (_SIZE // 6))),
    "keys-escaped": (
        "many keys with escapes",
        lambda m: b'{%b,%b"b":0}' % (m, b'"\\u006d":0,' * (_SIZE // 11)),
    ),
    "models-inside": (
        "many inner models",
        lambda m: b'{%b,"a":[%b0]}' % (m, b'{"model":1},' * (_SIZE // 12)),
    ),
    "nested": ("brackets", lambda m: b'{%b,"a":%b%b}' % (m, b"[" * (_SIZE // 2), b"]" * (_SIZE // 2))),
    "quotes": ("many short strings", lambda m: b'{%b,"a":[%b""]}' % (m, b'"",' * (_SIZE // 3))),
    "backslashes": ("escapes", lambda m: b'{%b,"a":"%b"}' % (m, b"\\\\" * (_SIZE // 2))),
    "escaped-quotes": ("escaped quotes", lambda m: b'{%b,"a":"%b"}' % (m, b'\\"' * (_SIZE // 2))),
    "white": ("white space", lambda m: b"{%b%b}" % (m, b" " * _SIZE)),
    "white-first": ("white space before the model", lambda m: b"%b{%b}" % (b" " * _SIZE, m)),
    "messages": (
        "a conversation of small messages",
        lambda m: (
            b'{%b,"messages":[%b{}]}' % (m, b'{"role":"user","content":"hello there"},' * (_SIZE // 40))
        ),
    ),
    "references": (
        "many names of what a body may refer to",
        lambda m: b'{%b,"a":{%b"b":0}}' % (m, b'"image_url":0,' * (_SIZE // 14)),
    ),
    "urls": ("many URLs", lambda m: b'{%b,"a":{%b"b":0}}' % (m, b'"url":0,' * (_SIZE // 8))),
    "pictures-behind-text": (
        "a picture behind many escaped quotes and brackets",
        lambda m: (
            b'{%b,"a":[%b0,"%b"],"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%b"}}]}]}'
            % (m, b"[]," * (_MIB // 6), b'\\"' * (_MIB // 2), b"iVBORw0K" * (_SIZE // 16))
        ),
    ),
    "stream": ("a stream with usage asked for", lambda m: b'{%b,"stream":true,"a":"%b"}' % (m, b"x" * _SIZE)),
    "no-model": ("no model at all", lambda m: b'{"a":"%b"}' % (b"x" * _SIZE)),
}

CASES: list[Case] = []


def _add(
    name: str, what: str, make: Make, *, wait_s: float = 0.0, admin: bool = False, both: bool = True
) -> None:
    CASES.append(Case(name, what, make, admin, True, wait_s))
    if both:
        CASES.append(Case(f"{name} (no token)", what, make, admin, False, wait_s))


def _add_data() -> None:
    _add("body/small", "an honest request", _chat(lambda m: b"{%b}" % m))
    for name, (what, body) in _BODIES.items():
        _add(f"body/{name}", f"64 MiB: {what}", _chat(body), both=name == "text")
    text = _BODIES["text"][1]
    _add("body/pinned-text", "64 MiB for one model", _chat(text, "p0/model-00000"), both=False)
    _add("body/pinned-keys", "64 MiB for one model", _chat(_BODIES["keys"][1], "p0/model-00000"), both=False)
    _add("body/chunks", "64 MiB in chunks of 16 KiB", _chunks(text, 16384))
    _add("body/chunks-tiny", "8 MiB in chunks of 1 byte", _chunks(lambda m: text(m)[: 8 * _MIB], 1))
    _add("body/everything", "an alias of 5,000 members", _chat(lambda m: b"{%b}" % m, "everything"))
    _add("body/auto", "all models", _chat(lambda m: b"{%b}" % m, "auto"))
    _add("name/unknown", "a name close to others", _chat(lambda m: b"{%b}" % m, "p0/modal-00001"))
    long = "model-0" * 20
    _add("name/unknown-long", "a longer one", _chat(lambda m: b"{%b}" % m, long))
    fallback = "X-Inferoute-Fallback: " + ", ".join(["p0/modal-00001"] * 8)
    _add("name/fallback", "unknown names as fallbacks", _chat(lambda m: b"{%b}" % m, "pair", fallback))
    fallback = "X-Inferoute-Fallback: " + "a," * 15_000
    _add("head/fallbacks", "16,000 fallbacks", _chat(lambda m: b"{%b}" % m, "pair", fallback))
    _add_heads()
    _add_paths("path", admin=False)
    _add("models", "GET /v1/models", _get("/v1/models"))
    _add("models/one", "GET of one model", _get("/v1/models/p0/model-00000"))
    _add("models/unknown", "GET of an unknown model", _get("/v1/models/p0/modal-00000"))
    _add_limited()
    for name in ("/healthz", "/readyz"):
        _add(f"probe{name}", "a probe", _get(name), both=False)


def _add_limited() -> None:
    """As keys with a list of models: long lists of names are one key's, each list of patterns is new."""
    everything = _post(_CHAT, b'{"model":"everything"}')
    large = _chat(lambda m: b'{%b,"a":"%b"}' % (m, b"x" * 4 * _MIB), "auto")
    with_patterns = count(PATTERNS, 5)
    for name, what, make in (
        ("models", "GET /v1/models", _get("/v1/models")),
        ("models/unknown", "GET of an unknown model", _get("/v1/models/p0/modal-1")),
        ("body/everything", "an alias of 5,000 members", everything),
        ("body/auto", "all models", _post(_CHAT, b'{"model":"auto"}')),
        ("body/auto-large", "4 MiB for all models", large),
        ("body/pinned", "one model", _post(_CHAT, b'{"model":"p0/model-00000"}')),
    ):
        _add(f"{name}-as-limited-key", f"{what}, of a key with 5,000 names", _by(make, repeat(1)), both=False)
        _add(
            f"{name}-by-patterns", f"{what}, of a key with 200 patterns", _by(make, with_patterns), both=False
        )


def _by(make: Make, keys: Iterator[int]) -> Make:
    """As the next of ``keys``, by their number."""

    def made(setup: Setup, _: str) -> Iterable[bytes]:
        secret = setup.secrets[next(keys) % len(setup.secrets)]
        return make(setup, f"Authorization: Bearer {secret}\r\n")

    return made


def _add_heads() -> None:
    tiny = b'{"model":"pair"}'
    _add(
        "head/lines",
        "195 headers of 150 bytes",
        _post(_CHAT, tiny, *[f"x-a{at}: {'v' * 140}" for at in range(190)]),
    )
    _add("head/thousands", "5,000 headers", _post(_CHAT, tiny, *[f"a{at:x}:" for at in range(4500)]))
    _add("head/options", "16,000 connection options", _post(_CHAT, tiny, "Connection: " + "a," * 15_800))
    names = ",".join(f"x{at}" for at in range(3000))
    _add(
        "head/options-lines",
        "options and lines",
        _post(_CHAT, tiny, "Connection: " + names, *[f"x{at}: 1" for at in range(180)]),
    )
    _add(
        "head/credentials",
        "190 keys",
        _post(_CHAT, tiny, *["x-api-key: th-" + "a" * 140 for _ in range(190)]),
    )
    _add("head/key-dashes", "what looks like keys", _post(_CHAT, tiny, "x-api-key: " + "th-" * 10_000))
    _add(
        "head/encodings",
        "many codings",
        _post(_CHAT, tiny, *["accept-encoding: " + "gzip," * 28 for _ in range(190)]),
    )
    _add("head/origins", "many origins", _post(_CHAT, tiny, *["origin: " + "a" * 140 for _ in range(190)]))
    _add(
        "head/empty-lines",
        "64 KiB of empty lines",
        lambda s, line: (b"\r\n" * _HEAD, b"\r\n" * _HEAD, b"GET /", b""),
        both=False,
    )
    _add("head/drip", "a head of 32 KiB, byte by byte", _dripping, both=False)
    _add("pipeline", "2,000 pipelined requests", _pipeline)


def _dripping(_: Setup, line: str) -> Iterable[bytes]:
    head = _head("POST", _CHAT, line) + b"x: " + b"a" * (_HEAD - 200) + b"\r\nContent-Length: 0\r\n\r\n"
    return (head[at : at + 64] for at in range(0, len(head), 64))


def _pipeline(_: Setup, line: str) -> Iterable[bytes]:
    body = b'{"model":"pair"}'
    head = f"POST {_CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}Content-Length: {len(body)}\r\n"
    one = head.encode() + b"\r\n" + body
    return (one * 200, head.encode() + b"Connection: close\r\n\r\n" + body)


def _add_paths(begin: str, *, admin: bool) -> None:
    size = 8000 if admin else 31_000
    prefix = "/admin/v1/keys" if admin else "/v1/models"
    _add(f"{begin}/slashes", "slashes", _get("/" + "/" * size), admin=admin)
    _add(f"{begin}/segments", "segments below a known path", _get(prefix + "/a" * (size // 2)), admin=admin)
    _add(f"{begin}/query", "many parameters", _get(prefix + "?" + "a&" * (size // 2)), admin=admin)
    _add(f"{begin}/query-escapes", "escapes", _get(prefix + "?a=" + "%41" * (size // 3)), admin=admin)
    _add(f"{begin}/percent", "escapes in the path", _get(prefix + "/" + "%41" * (size // 3)), admin=admin)
    packed = gzip.compress(bytes(256 * _MIB))
    _add(
        f"{begin}/gzip-nowhere",
        "a compressed body to no path",
        _post("/nothing", packed, "Content-Encoding: gzip"),
        admin=admin,
    )
    _add(
        f"{begin}/gzip-get",
        "a compressed body with a GET",
        _post("/healthz", packed, "Content-Encoding: gzip", method="GET"),
        admin=admin,
    )
    _add(f"{begin}/body-nowhere", "64 MiB to no path", _post("/nothing", lambda _: bytes(_BODY)), admin=admin)


def _add_answers() -> None:
    for name in ANSWERS:
        marked = b',"user":"case:' + name.encode() + b'"}'
        _add(
            f"answer/{name}",
            "of a provider",
            _chat(lambda m, e=marked: b"{" + m + e, "p0/model-00000"),
            both=False,
        )
    streams = [name for name in ANSWERS if name.startswith(("event", "chunks", "empty"))]
    for name in streams:
        marked = b',"stream":true,"user":"case:' + name.encode() + b'"}'
        for path, model, word in (
            ("/v1/responses", "p0/model-00000", "responses"),
            ("/v1/messages", "p0/model-00000", "messages"),
            (_CHAT, f"p{ASKING}/model-{ASKING:05}", "without-usage"),
        ):
            make = _chat(lambda m, e=marked: b"{" + m + e, model, path=path)
            _add(f"answer/{name}-{word}", f"a stream of a provider: {word}", make, both=False)


def _add_admin() -> None:
    for name in (
        "routes",
        "aliases",
        "keys",
        "usage",
        "requests",
        "requests?limit=1000",
        "usage?by=key,model,day",
    ):
        _add(f"admin/{name}", "GET", _get(f"/admin/v1/{name}"), admin=True)
    for name in (
        "aliases/everything",
        "aliases/nothing",
        "keys/key-001",
        "keys/nothing",
        "openapi.json",
        "nothing",
    ):
        _add(f"admin/{name}", "GET", _get(f"/admin/v1/{name}"), admin=True, both=False)
    _add("admin/metrics", "GET /metrics", _get("/metrics"), admin=True)
    _add("admin/live", "a watcher for 3 s", _live, admin=True)
    _add("admin/quiet", "3 s in which nobody asks", lambda s, line: _quiet(), admin=True, both=False)
    for name, body in _explained().items():
        _add(
            f"admin/explain-{name}",
            "POST explain",
            _post("/admin/v1/explain", body),
            admin=True,
            both=name == "text",
        )
    for name, body in _settings().items():
        _add(
            f"admin/alias-{name}",
            "PUT of an alias",
            _post("/admin/v1/aliases/new", body, method="PUT"),
            admin=True,
            both=name == "names",
            wait_s=1.0,
        )
    _add(
        "admin/alias-remove",
        "DELETE of an alias",
        lambda s, line: (_head("DELETE", "/admin/v1/aliases/new", line) + b"\r\n",),
        admin=True,
        wait_s=1.0,
    )
    for name, body in _settings().items():
        _add(
            f"admin/key-{name}",
            "POST of a key",
            _post("/admin/v1/keys", body),
            admin=True,
            both=False,
            wait_s=0.5,
        )
    _add(
        "admin/key-edit",
        "PATCH of a key",
        lambda s, line: _post(
            "/admin/v1/keys/key-002", json.dumps({"models": s.names}).encode(), method="PATCH"
        )(s, line),
        admin=True,
        both=False,
    )
    _add(
        "admin/reload-nothing",
        "POST reload, nothing changed",
        _post("/admin/v1/reload", b"{}"),
        admin=True,
        wait_s=1.0,
    )
    _add("admin/reload-all", "POST reload, all models changed", _reload, admin=True, both=False, wait_s=3.0)
    _add_paths("admin/path", admin=True)
    _add(
        "admin/accept",
        "an Accept of 8 KiB",
        _get("/admin/v1/usage", "Accept: " + "a;q=1," * 2500),
        admin=True,
    )
    _add(
        "admin/head-lines",
        "190 headers",
        _get("/admin/v1/usage", *[f"x-a{at}: {'v' * 1000}" for at in range(190)]),
        admin=True,
    )


def _live(_: Setup, line: str) -> Iterable[bytes]:
    yield _head("GET", "/admin/v1/live", line) + b"\r\n"
    time.sleep(3.0)
    yield b""  # it does not wait for the end


def _quiet() -> Iterable[bytes]:
    time.sleep(3.0)
    return (b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n",)


def _reload(setup: Setup, line: str) -> Iterable[bytes]:
    text = setup.file.read_text()
    old, new = ("= 4096", "= 8192") if "= 4096" in text else ("= 8192", "= 4096")
    setup.file.write_text(text.replace(f"max_output_tokens {old}", f"max_output_tokens {new}"))
    return _post("/admin/v1/reload", b"{}")(setup, line)


def _explained() -> dict[str, Callable[[Setup], bytes]]:
    size = 4 * _MIB - 200
    pair, begin = b'"model":"pair"', b'{"model":"pair",'
    return {
        "small": lambda _: b"{%b}" % pair,
        "everything": lambda _: b'{"model":"everything"}',
        "auto": lambda _: b'{"model":"auto"}',
        "unknown": lambda _: b'{"model":"p0/modal-1"}',
        "text": lambda _: begin + b'"a":"%b"}' % (b"x" * size),
        "brackets": lambda _: begin + b'"a":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}",
        "lists": lambda _: begin + b'"a":[' + b"[]," * (size // 3) + b"0]}",
        "objects": lambda _: begin + b'"a":[' + b"{}," * (size // 3) + b"0]}",
        "keys": lambda _: begin + b"".join(b'"%x":0,' % at for at in range(size // 9)) + b'"a":0}',
        "numbers": lambda _: begin + b'"a":[' + b"0," * (size // 2) + b"0]}",
        "wrapped": lambda _: b'{"body":{"model":"pair","a":[' + b"[]," * (size // 3) + b"0]}}",
        "messages": lambda _: (
            begin + b'"messages":[' + b'{"role":"user","content":"hi"},' * (size // 31) + b"{}]}"
        ),
    }


def _settings() -> dict[str, Callable[[Setup], bytes]]:
    size = _MIB - 200
    return {
        "names": lambda setup: json.dumps({"name": "new", "models": setup.names}).encode(),
        "brackets": lambda _: b'{"a":' + b"[" * size,
        "brackets-closed": lambda _: b'{"a":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}",
        "lists": lambda _: b'{"a":[' + b"[]," * (size // 3) + b"0]}",
        "objects": lambda _: b'{"a":[' + b"{}," * (size // 3) + b"0]}",
        "keys": lambda _: b"{" + b",".join(b'"%x":0' % at for at in range(size // 9)) + b"}",
        "numbers": lambda _: b'{"models":[' + b"0," * (size // 2) + b"0]}",
        "unknown-names": lambda _: (
            b'{"name":"new","models":[%b""]}' % b"".join(b'"p0/modal-%05d",' % at for at in range(size // 17))
        ),
        "text": lambda _: b'{"name":"' + b"x" * size + b'"}',
        "cut": lambda _: b'{"name":"' + b"x" * size,
    }


_add_data()
_add_answers()
_add_admin()
