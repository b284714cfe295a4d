"""The grammars of settings about headers, parameters and where a key goes; as :mod:`proxy.config.values`."""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.config.forwarding import why_never
from proxy.config.values import choice, kind, text
from proxy.wire.header_lines import (
    CREDENTIAL_HEADERS,
    HOP_HEADERS,
    OWN_HEADERS,
    OWN_PREFIXES,
    is_kept,
    may_pass,
)
from proxy.wire.query import is_never_passed

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_PATTERN = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+\*?")  # of header names: exact, or a prefix with a "*"
_PARAMETER = re.compile(r"[!\"$'()*,./0-9:<>?@A-Z\[\\\]^_`a-z{|}~-]{1,100}")
# Headers that belong to one connection or frame the message: the gateway writes these itself.
_REFUSED_HEADERS = frozenset(
    b"connection content-encoding content-length content-type expect host keep-alive proxy-connection te "
    b"trailer transfer-encoding upgrade".split()
)


def header_name(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"must not set the header {name!r}: that is not a header name")
    if name.lower().encode() in _REFUSED_HEADERS:
        raise ValueError(f"must not set the header '{name}': the gateway itself writes it")
    return name


def header_value(value: object) -> str:
    written = text(value)
    if any(char in written for char in "\r\n"):
        raise ValueError("must not contain line breaks")
    if not all(" " <= char <= "ÿ" or char == "\t" for char in written) or "\x7f" in written:
        raise ValueError("must not contain control characters or characters beyond Latin-1")
    return written.strip(" \t")


def passed_header(value: object) -> str:
    """A client's header that a provider gets beside the usual ones: a name, or a prefix with a ``*``."""
    written = _pattern(value)
    if written == "*":
        raise ValueError(
            "can't be all, as nobody knows what an unknown header does at a provider: name them, or a prefix"
        )
    name = written.lower().encode()
    reason = why_never(name.removesuffix(b"*"))
    if reason is not None:
        raise ValueError(f"can't let '{written}' pass: it {reason}; {_instead(written, name)}")
    return written


def _instead(written: str, name: bytes) -> str:
    """The way out where a client's header can't pass, as the middle of a sentence."""
    if name.find(b"_") >= 0 and may_pass(name.replace(b"_", b"-")):
        other = written.replace("_", "-")
        return f"let clients send '{other}' and name that"
    if written.endswith("*"):
        return "name single headers, or a longer prefix"
    if name in OWN_HEADERS or name in HOP_HEADERS or name.startswith(OWN_PREFIXES):
        return "take it out"
    fixed = f'a fixed value goes with headers = {{ {written} = "…" }}'
    if name in CREDENTIAL_HEADERS:
        return f'clients\' own go with auth = "passthrough", and {fixed}'
    return f"take it out; {fixed}"


def dropped_header(value: object) -> str:
    """A client's header that a provider doesn't get, though others do: a name, a prefix with a ``*``, or
    ``*`` for all."""
    written = _pattern(value)
    if written.lower().encode() in OWN_HEADERS:
        raise ValueError(f"can't drop '{written}': the gateway itself writes it; take it out")
    return written


def _pattern(value: object) -> str:
    written = text(value)
    if written == "*" or _PATTERN.fullmatch(written):
        return written
    raise ValueError('must be names of headers, without values; a "*" may stand at the end')


def passed_parameter(value: object) -> str:
    """A parameter of a client's query that a provider gets beside the usual ones."""
    written = text(value)
    if not _PARAMETER.fullmatch(written) or written == "*":
        raise ValueError(
            'must be names of parameters, each by itself: without values, not percent-encoded, and no "*"'
        )
    if is_never_passed(written):
        raise ValueError(
            f"can't let '{written}' pass: it names a model or holds a secret; take it out, and put what each "
            f'request is to have into query = {{ {written} = "…" }}'
        )
    return written


def auth(names: tuple[str, ...], endpoints: tuple[str, ...]) -> Callable[[object], dict[str, str]]:
    """Read where a key goes, by endpoint, and for the others as ``default``: one word, or a table.

    :param names: those that may stand alone; in a table ``passthrough`` is not allowed.
    """
    word = choice(names, "auth")

    def read(value: object) -> dict[str, str]:
        if not isinstance(value, dict):
            if isinstance(value, str):
                return {"default": word(value)}
            raise ValueError(f"must be text in quotes or a table by endpoint, not {kind(value)}")
        if not value:
            raise ValueError('must not be an empty table: { messages = "x-api-key", default = "bearer" }')
        name = choice((*endpoints, "default"), "endpoint")
        found = {name(endpoint): word(way) for endpoint, way in value.items()}
        if "passthrough" in found.values():
            raise ValueError('can\'t have "passthrough" for some endpoints only: it is for a whole provider')
        return {"default": "bearer", **found}

    return read


def sticky(value: object) -> str:
    """Read what keeps a client on one side of a split: "key" or "header:NAME"."""
    written = text(value)
    if written == "key":
        return written
    name = written.removeprefix("header:")
    if name != written and _TOKEN.fullmatch(name):
        if not is_kept(name.lower().encode()):
            raise ValueError(f"can't go by '{name}', which is not kept; credentials are \"key\"")
        return written
    raise ValueError('must be "key" or "header:NAME"')
