"""Content-Type of a request: whether its body is JSON in UTF-8.

The provider gets a Content-Type of ours, since servers go by the client's: a body that is JSON to the gateway
is a form, or UTF-7, to them, and asks for another model than the one that was admitted.
"""

from __future__ import annotations

import re
from typing import Final

# RFC 9110 sections 5.6.2, 5.6.4 and 8.3.1. The quantifiers give nothing back, so that a value is read once.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_PARAMETER: Final = rb"[ \t]*+;[ \t]*+(?:(%b)=(%b|%b))?+" % (_TOKEN, _TOKEN, _QUOTED)
_MEDIA_TYPE: Final = re.compile(rb"(%b/%b)((?:%b)*+)" % (_TOKEN, _TOKEN, _PARAMETER))
_NEXT_PARAMETER: Final = re.compile(_PARAMETER)
_UTF_8: Final = (b"utf-8", b"utf8")


def is_json(value: bytes) -> bool:
    """Return whether a Content-Type says JSON in UTF-8, or says no more than a browser does by itself.

    JSON is ``application/json`` and what ends in ``+json`` (RFC 6839 section 3.1). ``text/plain`` without a
    charset is what browsers send without asking first.
    """
    match = _MEDIA_TYPE.fullmatch(value)
    if match is None:
        return False
    media_type = match[1].lower()
    charset = b""
    for name, said in _NEXT_PARAMETER.findall(match[2]):
        if name.lower().startswith(b"charset"):
            if charset or len(name) > 7:  # said twice, or as RFC 8187 writes it: charset*=
                return False
            charset = said.replace(b"\\", b"").strip(b'"').lower() or b"?"
    if media_type == b"text/plain":
        return not charset
    is_type = media_type == b"application/json" or (
        media_type.startswith(b"application/") and media_type.endswith(b"+json")
    )
    return is_type and (not charset or charset in _UTF_8)
