"""Requests with two faces: one for a program that goes by bytes, another for one that parses, decodes, merges.

Each asks for ``p/cheap``, which the key may use, and hides something else: the model ``dear``, an answer that
is longer than the key may have, a stream. A case with ``runs`` hides nothing and has to come through.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from tests.support.header_sets import IDENTITY, STEERING

JSON = (b"Content-Type: application/json",)
# An address that nobody may be sent to. The readers know it by the word in it; for a gateway of others the
# host is replaced with that of a provider that notes who comes.
EVIL_HOST = b"127.0.0.1:9"
EVIL = b"http://" + EVIL_HOST + b"/evil"


class Case(NamedTuple):
    """A request. ``runs``: each reader must run it as it stands.

    :param lines: of the head. :param chunk: bytes of each chunk; 0: the body has a length.
    :param slowly: each byte of the body is written by itself.
    """

    name: str
    body: bytes
    lines: tuple[bytes, ...] = JSON
    query: bytes = b""
    chunk: int = 0
    slowly: bool = False
    runs: bool = False


CHEAP = b'"model":"p/cheap"'
PLAIN = b'{"model":"p/cheap","messages":[]}'


def typed(*values: bytes) -> tuple[bytes, ...]:
    return tuple(b"Content-Type: " + value for value in values)


def with_key(key: bytes, value: bytes = b'"dear"', colon: bytes = b":") -> bytes:
    return b"{" + CHEAP + b"," + key + colon + value + b"}"


# ---------------------------------------------------------------------- nothing hidden


HONEST = {
    "plain": PLAIN,
    "white space": b' \t\r\n{ \n"model" : "p/cheap" , "max_tokens" : 100, "messages"\n:\t[ ] }\r\n',
    "limits": b'{"model":"p/cheap","max_tokens":50,"n":2,"stream":false,"messages":[]}',
    "stream": b'{"stream":true,"model":"p/cheap","max_completion_tokens":7,"messages":[]}',
    "inner models": b'{"messages":[{"model":"dear","max_tokens":5000}],"x":{"model":"dear"},"model":"p/cheap"}',
    "not ASCII": '{"model":"p/cheap","x":"日本 ☃ 😀 é","messages":[]}'.encode(),
    "escapes": rb'{"x":"\u0000\ud83d\ude00\"\\ \/ \b\f\n\r\t","model":"p/cheap","y\u00e9":"\\","messages":[]}',
    "all kinds": b'{"a":[true,false,null,-1.5e-3,0,{}],"b":{"c":[[]]},"model":"p/cheap","d":1E+2,"messages":[]}',
    "words in text": rb'{"x":"\",\"model\":\"dear\",\"n\":5000,\"y\":\"","model":"p/cheap","messages":[]}',
}


def honest() -> Iterator[Case]:
    for name, body in HONEST.items():
        yield Case(f"honest: {name}", body, runs=True)
    yield Case("honest: chunks", PLAIN, chunk=5, runs=True)
    yield Case("honest: slowly", PLAIN, slowly=True, runs=True)
    yield Case("honest: charset", PLAIN, typed(b"application/json; charset=utf-8"), runs=True)
    yield Case("honest: no type", PLAIN, (), runs=True)


# ---------------------------------------------------------------------- one thing as bytes, another as text


def wide(encoding: str, secret: str) -> bytes:
    """A text in two or four bytes a character, some of which spell, as bytes, what the key may use."""
    size = len("x".encode(encoding))
    # Within a string of the text: it ends the gateway's, says the model, and begins another. Each group of
    # bytes is one character that may stand in a string. The provider's name is shorter by two.
    spelled = b' ","model":"p/cheap","y":"' if size == 2 else b""
    spelled += b" " * (-len(spelled) % size)
    before, _, after = f'{{"x":"|",{secret}}}'.partition("|")
    return before.encode(encoding) + spelled + after.encode(encoding)


def encodings() -> Iterator[Case]:
    secret = '"model":"dear","max_tokens":5000'
    types = [b"application/json", b"application/json; charset=utf-16le", b"application/json; charset=utf-16"]
    for encoding in ("utf-16-le", "utf-16-be"):
        for kind in types:
            yield Case(f"{encoding} with CJK as {kind.decode()}", wide(encoding, secret), typed(kind))
        whole = f'{{"model":"dear","x":"{CHEAP.decode()}"}}'.encode(encoding)
        yield Case(f"{encoding} whole", whole)
        # The ASCII part alone is what the other side is to find.
        yield Case(f"{encoding} behind ASCII", PLAIN[:-1] + b"," + '"model":"dear"}'.encode(encoding))
    for encoding in ("utf-16", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig"):
        yield Case(f"{encoding} whole", '{"model":"dear"}'.encode(encoding))
        yield Case(f"{encoding} of what is allowed", PLAIN.decode().encode(encoding))
    for name, mark in {"UTF-8": b"\xef\xbb\xbf", "UTF-16": b"\xff\xfe", "UTF-7": b"+/v8-"}.items():
        yield Case(f"mark of {name} in front", mark + PLAIN)
        yield Case(f"mark of {name} behind the brace", b"{" + mark + PLAIN[1:])
        yield Case(f"mark of {name} before the second key", b"{" + CHEAP + b"," + mark + b'"model":"dear"}')
        yield Case(f"mark of {name} within the second key", with_key(b'"' + mark + b'model"'))
    yield Case("mark of UTF-8 before white space", b" \xef\xbb\xbf" + PLAIN)
    yield from charsets()


SEVENS = {
    "utf-7": rb'{"model":"p/cheap","x":"+ACI-,+ACI-model+ACI-:+ACI-dear+ACI-,+ACI-max_tokens+ACI-:5000,+ACI-y+ACI-:+ACI-"}',
    "utf-7-imap": rb'{"model":"p/cheap","x":"&ACI-,&ACI-model&ACI-:&ACI-dear"}',
    "unicode_escape": rb'{"model":"p/cheap","x":"\u0022,\u0022model\u0022:\u0022dear"}',
    "raw_unicode_escape": rb'{"model":"p/cheap","x":"\u0022,\u0022model\u0022:\u0022dear"}',
    # Between the marks each two bytes are one character: the quotes there are none.
    "hz": b'{"x":"~{","model":"p/cheap","!"~}","model":"dear"}',
    "iso-2022-jp": b'{"x":"\x1b$B","model":"p/cheap","!"\x1b(B","model":"dear"}',
    # A lead byte takes the quote, or the backslash, behind it.
    "shift_jis": b'{"x":"\x95\\","model":"dear","y":"","model":"p/cheap"}',
    "gbk": b'{"model":"p/cheap","x":"\x81\\","model":"dear","y":""}',
    "big5": b'{"model":"p/cheap","x":"\xa4\\","model":"dear","y":"\\""}',
    "euc-kr": b'{"model":"p/cheap","x":"\xa4\\","model":"dear"}',
    "latin-1": b'{"model":"p/cheap","\xa0model":"dear"}', "cp1252": b'{"model":"p/cheap","\x81model":"dear"}',
    "cp037": '{"model":"dear"}'.encode("cp037"),
}  # fmt: skip


SPELLED_SEVENS = (
    b'application/json; charset="utf-7"', b"application/json;charset=UTF-7",
    b"application/json; charset=utf7", b"application/json; charset=u7",
    b"application/json; charset=unicode-1-1-utf-7", b"application/json ; charset = utf-7",
    b"application/json; Charset=utf-7", b"application/json; charset=utf-8; charset=utf-7",
    b"application/json; charset=utf-7; charset=utf-8", b"application/json; charset*=utf-8''utf-7",
    b"application/json; charset*0=utf;charset*1=-7", b'application/json; x="; charset=utf-8"; charset=utf-7',
    b"application/json, text/plain; charset=utf-7", b"text/plain; charset=utf-7",
    b"application/vnd.api+json; charset=utf-7", b"text/json; charset=utf-7",
    b"application/json; charset=utf_7", b"application/json;\tcharset=utf-7",
    b"application/json; charset=utf\\-7", b'application/json; charset="utf\\-7"',
    b"application/json; charset='utf-7'",
)  # fmt: skip


def charsets() -> Iterator[Case]:
    for charset, body in SEVENS.items():
        yield Case(f"charset {charset}", body, typed(b"application/json; charset=" + charset.encode()))
        yield Case(f"bytes of charset {charset}", body)
    seven = SEVENS["utf-7"]
    for kind in SPELLED_SEVENS:
        yield Case(f"UTF-7 as {kind.decode()}", seven, typed(kind))
    first, second = b"application/json", b"application/json; charset=utf-7"
    yield Case("UTF-7, the type twice", seven, typed(first, second))
    yield Case("UTF-7, the type twice, the other way round", seven, typed(second, first))
    yield Case("UTF-7, the type in two spellings", seven, (JSON[0], b"content_type: " + second))
    yield Case("UTF-7, the type in capitals", seven, (JSON[0], b"CONTENT-TYPE: " + second))
    yield Case("UTF-7, the type with a blank line's worth", seven, (b"Content-Type:\t" + second + b"\t",))


FORM, PARTS = b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=b"
KINDS = (
    b"text/plain", b"application/octet-stream", b"application/xml", b"application/yaml", b"application/jsonp",
    b"application/json-seq", b"application/x-ndjson", b"application/cbor", b"", b";", b"json", b"*/*",
)  # fmt: skip


def types() -> Iterator[Case]:
    form = b'{"model":"p/cheap","x":"&model=dear&max_tokens=5000&prompt=hi&y="}'
    for kind in (FORM, FORM + b"; charset=utf-8", FORM.upper(), FORM + b", application/json"):
        yield Case(f"a form as {kind.decode()}", form, typed(kind))
    yield Case("a form, both types", form, typed(b"application/json", FORM))
    yield Case("a form, both, the other way", form, typed(FORM, b"application/json"))
    yield Case("a form in brackets", b'{"model":"p/cheap","x":"&model[]=dear&a="}', typed(FORM))
    part = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ndear\r\n--b--'
    text = part.replace(b'"', b"").replace(b"\r\n", b"\n")
    yield Case("a form of parts", b'{"model":"p/cheap"}\r\n' + part, typed(PARTS))
    yield Case("a form of parts in a string", b'{"model":"p/cheap","x":"\n' + text + b'\n"}', typed(PARTS))
    yield Case("JSON as parts", PLAIN, typed(PARTS))
    yield Case("JSON as parts without boundary", PLAIN, typed(b"multipart/form-data"))
    for kind in KINDS:
        yield Case(f"JSON as {kind.decode()!r}", PLAIN, typed(kind))
    lines = b'{"model":"p/cheap"}\n{"model":"dear"}'
    yield Case("lines of JSON", lines, typed(b"application/x-ndjson"))
    secret = b'{"model":"dear","max_tokens":5000}'
    for coding, packed in {"gzip": gzip.compress(secret, mtime=0), "deflate": zlib.compress(secret)}.items():
        yield Case(f"packed by {coding}", packed, (*JSON, b"Content-Encoding: " + coding.encode()))
        yield Case(f"packed by {coding}, unsaid", packed)
        yield Case(
            f"packed by {coding}, in two lines", packed,
            (*JSON, b"Content-Encoding: identity", b"Content-Encoding: " + coding.encode()),
        )  # fmt: skip
    for coding in (b"gzip", b"identity", b"br", b"x", b"gzip, identity", b""):
        yield Case(f"unpacked as {coding.decode()!r}", PLAIN, (*JSON, b"Content-Encoding: " + coding))
    packed = gzip.compress(secret, mtime=0)
    yield Case("the coding with an underscore", packed, (*JSON, b"Content_Encoding: gzip"))


# ---------------------------------------------------------------------- what is not JSON, and is taken for it


COMMENTS = {
    "block with a quote": b'{"model":"p/cheap"/*"*/,"model":"dear"/*"*/}',
    "block, the first counts": b'{/*"*/"model":"dear",/*"*/"model":"p/cheap"}',
    "line with a quote": b'{"model":"p/cheap"//"\n,"model":"dear"//"\n}',
    "hash with a quote": b'{"model":"p/cheap"#"\n,"model":"dear"#"\n}',
    "before the colon": b'{"model":"p/cheap","model"/**/:"dear"}',
    "line before the colon": b'{"model":"p/cheap","model"//\n:"dear"}',
    "behind the colon": b'{"model":"p/cheap","max_tokens":/**/5000}',
    "before a limit's colon": b'{"model":"p/cheap","max_tokens"/**/:5000}',
    "before the stream's colon": b'{"model":"p/cheap","stream"/**/:true}',
    "in front": b'/*{"model":"p/cheap"}*/{"model":"dear"}',
    "with braces": b'{"model":"p/cheap"/*}*/,/*{*/"x":{"model":"dear"}}',
    "with a brace open": b'{"model":"p/cheap"/*{*/,"model":"dear"/*}*/}',
    "with a brace closed": b'{"model":"p/cheap"/*}*/,"model":"dear"/*{*/}',
    "of HTML": b'{"model":"p/cheap"<!--"-->,"model":"dear"<!--"-->}',
    "with an array open": b'{"max_tokens"/*[*/:5000/*]*/,"model":"p/cheap"}',
}


# Where a byte stands that is nothing to JSON, and white space to some: at the tilde.
BETWEEN = {
    "between key and colon": b'{"model"~:"dear","model":"p/cheap"}',
    "between the second key and colon": with_key(b'"model"', colon=b"~:"),
    "before the limit's colon": with_key(b'"max_tokens"', b"5000", b"~:"),
    "behind the limit's colon": with_key(b'"max_tokens"', b"5000", b":~"),
    "before the stream's value": with_key(b'"stream"', b"true", b":~"),
    "behind the colon": b'{"model":~"dear","model":"p/cheap"}', "in front": b"~" + PLAIN,
    "behind": PLAIN + b'~{"model":"dear"}', "in the key": with_key(b'"mo~del"'),
    "behind the key's word": with_key(b'"model~"'),
    "behind the limit's word": with_key(b'"max_tokens~"', b"5000"),
    "before the key": b"{" + CHEAP + b',~"model":"dear"}', "in the value": b'{"model":"p/cheap","x":"~","y":1}',
    "in the model": b'{"model":"p/ch~eap"}',
}  # fmt: skip
CONTROLS = {f"0x{byte:02x}": bytes((byte,)) for byte in (0, 1, 8, 11, 12, 0x1A, 0x1B, 0x1F, 0x7F)}
SPACES = {
    f"U+{ord(space):04X}": space.encode() for space in "\x85\xa0\u2028\u2029\u200b\u3000\ufeff\u180e\xad"
}


def between() -> Iterator[Case]:
    for name, odd in CONTROLS.items():
        for where, body in BETWEEN.items():
            yield Case(f"{name} {where}", body.replace(b"~", odd))
    for name, odd in SPACES.items():
        for where in ("between key and colon", "before the limit's colon", "in front"):
            yield Case(f"{name} {where}", BETWEEN[where].replace(b"~", odd))
        yield Case(f"{name} in the key", with_key(b'"mod' + odd + b'el"'))


# What lenient parsers take beside JSON.
LOOSE = {
    "single quotes": b"{'model':'dear',\"model\":\"p/cheap\"}",
    "single quotes behind": b"{\"model\":\"p/cheap\",'model':'dear'}",
    "single quotes around a quote": b'{\'x\':\'"\',"model":"dear",\'y\':\'"\',"model":"p/cheap"}',
    "single quotes around what counts": b"{'x':'\",\"model\":\"p/cheap\",\"','model':'dear'}",
    "backticks": b'{"model":"p/cheap",`model`:`dear`}', "unquoted key": b'{"model":"p/cheap",model:"dear"}',
    "unquoted limit": b'{"model":"p/cheap",max_tokens:5000}', "unquoted n": b'{"model":"p/cheap",n:5000}',
    "unquoted in escapes": rb'{"model":"p/cheap",\u006dodel:"dear"}',
    "trailing comma": b'{"model":"p/cheap",}', "comma in front": b'{,"model":"p/cheap"}',
    "two commas": b'{"model":"p/cheap",,"x":1}', "no comma": b'{"model":"p/cheap" "model":"dear"}',
    "no comma, a limit": b'{"model":"p/cheap" "max_tokens":5000}',
    "equals": b'{"model":"p/cheap","model"="dear"}', "arrow": b'{"model":"p/cheap","model"=>"dear"}',
    "two colons": b'{"model":"p/cheap","model"::"dear"}', "semicolon": b'{"model":"p/cheap";"model":"dear"}',
    "NaN": b'{"model":"p/cheap","max_tokens":NaN}', "Infinity": b'{"model":"p/cheap","max_tokens":Infinity}',
    "minus Infinity": b'{"model":"p/cheap","max_tokens":-Infinity}',
    "NaN elsewhere": b'{"x":NaN,"model":"p/cheap"}',
    "undefined": b'{"model":"p/cheap","max_tokens":undefined}', "True": b'{"model":"p/cheap","stream":True}',
    "yes": b'{"model":"p/cheap","stream":yes}', "parentheses": b'({"model":"p/cheap","model":"dear"})',
    "parenthesis behind": b'{"model":"p/cheap"})', "guard of Angular": b')]}\',\n{"model":"p/cheap"}',
    "while(1)": b'while(1);{"model":"p/cheap"}', "callback": b'cb({"model":"p/cheap"})',
    "array around": b'[{"model":"p/cheap"}]', "array behind": b'{"model":"p/cheap"}[{"model":"dear"}]',
    "string": b'"{\\"model\\":\\"p/cheap\\"}"', "null": b"null", "nothing": b"", "white space": b" \n",
    "junk in front": b'x{"model":"p/cheap"}', "junk behind": b'{"model":"p/cheap"}x',
    "comma behind": b'{"model":"p/cheap"},', "second object": b'{"model":"p/cheap"}{"model":"dear"}',
    "second object, a line on": b'{"model":"p/cheap"}\n{"model":"dear"}',
    "second object without a model": b'{"model":"p/cheap"}{"max_tokens":5000}',
    "first object without a model": b'{"max_tokens":5000}{"model":"p/cheap"}',
    "empty object first": b'{}{"model":"p/cheap"}', "array first": b'{"a":[]}{"model":"p/cheap"}',
    "closed too often": b'{"model":"p/cheap"}}',
    "closed, and opened": b'{"model":"p/cheap"}},{{"model":"dear"}',
    "closed by a bracket": b'{"model":"p/cheap"]',
    "closed by a bracket, and on": b'{"x":[1},"model":"p/cheap","y":{"model":"dear"]}',
    "closed by another": b'{"x":{"a":1],"model":"dear","y":["b":1},"model":"p/cheap"}',
    "bracket as a value": b'{"model":"p/cheap","x":],"model":"dear","y":[}',
    "not closed": b'{"model":"p/cheap"', "not closed within": b'{"model":"p/cheap","x":{"model":"dear"}',
    "string not closed": b'{"model":"p/cheap","x":"',
    "string not closed before a key": b'{"model":"p/cheap","x":"\n,"model":"dear"}',
    "key without value": b'{"model":"p/cheap","max_tokens"}',
    "value without key": b'{"model":"p/cheap",5000}',
    "key that is a number": b'{"model":"p/cheap",5000:"max_tokens"}',
    "key that is an object": b'{"model":"p/cheap",{"model":"dear"}:1}',
    "key that is null": b'{"model":"p/cheap",null:{"model":"dear"}}',
    "two values": b'{"model":"p/cheap" "dear"}', "two strings": b'{"model":"p/" "cheap"}',
    "two strings added": b'{"model":"p/cheap"+"dear"}',
    "model that is an object": b'{"model":{"a":"p/cheap"}}',
    "model that is an array": b'{"model":["p/cheap","dear"]}', "model that is null": b'{"model":null}',
    "model that is empty": b'{"model":""}', "model of either": b'{"model":"p/cheap,p/dear"}',
    "model with white space": b'{"model":" p/cheap "}', "model with escapes": rb'{"model":"\u0070\/cheap"}',
    "model with an escaped NUL": rb'{"model":"p/cheap\u0000dear"}',
    "model with a lone surrogate": rb'{"model":"p/cheap\ud800"}',
    "model not decoded": rb'{"model":"p\/ch\eap"}',
}  # fmt: skip


# ---------------------------------------------------------------------- keys in other spellings

SPELLED = {
    "invalid escape": rb'"mo\del"', "invalid escape of a quote": b'"mo\\\'del"',
    "escape of x": rb'"\x6dodel"', "escape of octal": rb'"\155odel"', "escape of U": rb'"\U0000006dodel"',
    "escape in braces": rb'"\u{6d}odel"', "escape too short": rb'"\u6dodel"', "escape cut": rb'"model\"',
    "escape of a zero": rb'"model\0"', "escape of nothing": b'"mo\\\ndel"',
    "escape of a line's end": b'"mo\\\r\ndel"', "escape of v": rb'"\vmodel"', "escape of a": rb'"model\a"',
    "escape of e": rb'"model\e"', "escaped": rb'"\u006dodel"', "escaped in capitals": rb'"\u006Dodel"',
    "escaped to the end": rb'"mode\u006c"', "escaped all": rb'"\u006d\u006f\u0064\u0065\u006c"',
    "with an escaped NUL": rb'"model\u0000"', "with an escaped mark": rb'"\ufeffmodel"',
    "with a lone surrogate": rb'"model\ud800"', "with a lone surrogate in front": rb'"\udc00model"',
    "with surrogates in the wrong order": rb'"\udc00\ud800model"', "in capitals": b'"MODEL"',
    "with a capital": b'"Model"', "with the last a capital": b'"modeL"', "escaped capital": rb'"\u004dodel"',
    "in full width": '"ｍｏｄｅｌ"'.encode(), "with Greek": '"mοdel"'.encode(),
    "with a ligature": '"ﬆream"'.encode(), "with white space": b'" model"',
    "with white space behind": b'"model "', "with a tab": b'"model\t"', "with an escaped tab": rb'"model\t"',
    "overlong": b'"\xc1\xad\xc1\xafdel"', "overlong in three": b'"\xe0\x81\xadodel"',
    "overlong quote": b'"x\xc0\xa2,\xc0\xa2model"', "cut character": b'"model\xe2\x80"',
    "continuation": b'"mo\x80del"', "surrogate as bytes": b'"model\xed\xa0\x80"',
    "above Unicode": b'"model\xf4\x90\x80\x80"', "byte of no text": b'"\xffmodel"',
    "long escape": rb'"\u006d\u006f\u0064\u0065\u006c' + rb"\u0000" * 40 + b'"', "brackets": b'"model[]"',
    "dot": b'"model.name"', "prototype": b'"__proto__"', "quote in quotes": rb'"\"model\""',
}  # fmt: skip


LIMITS = {
    "invalid escape": rb'"max_to\kens"', "escaped tab": rb'"max_\tokens"',
    "escape of a line": rb'"max\_tokens"', "escape of x": rb'"\x6dax_tokens"',
    "escape of a quote": rb"""'"max_to\'kens"'"""[1:-1], "with an escaped NUL": rb'"max_tokens\u0000"',
    "with a lone surrogate": rb'"max_tokens\ud800"', "overlong": b'"\xc1\xadax_tokens"',
    "a byte of no text": b'"max_tokens\xff"', "single quotes": b"'max_tokens'",
    "all escaped": b'"' + b"".join(b"\\u%04x" % letter for letter in b"max_completion_tokens") + b'"',
    "escaped line": rb'"max\u005ftokens"', "Kelvin sign": b'"max_toKens"',
    "Kelvin sign escaped": rb'"max_to\u212aens"', "long s": '"max_tokenſ"'.encode(),
    "capitals": b'"Max_Tokens"', "camels": b'"maxTokens"', "dashes": b'"max-tokens"',
    "long s in stream": '"ſtream"'.encode(),
}  # fmt: skip


STREAMS = {
    "invalid escape": rb'"st\ream"', "escape of x": rb'"\x73tream"', "odd escape": rb'"s\tream"',
    "escaped": rb'"\u0073tream"', "capital": b'"Stream"', "odd escape at the end": rb'"strea\m"',
}  # fmt: skip


KEYS = {
    "twice": with_key(b'"model"'),
    "twice, the other first": b'{"model":"dear",' + CHEAP + b"}",
    "twice the same": b"{" + CHEAP + b"," + CHEAP + b"}",
    "twice, the other null": with_key(b'"model"', b"null"),
    "twice, the other a number": with_key(b'"model"', b"1"),
    "thrice": b'{"model":"p/cheap","model":"dear","model":"p/cheap"}',
    "empty key": b'{"model":"p/cheap","":"dear"}',
    "prototype": b'{"__proto__":{"model":"dear","max_tokens":5000,"stream":true},"model":"p/cheap"}',
    "prototype behind": b'{"model":"p/cheap","__proto__":{"model":"dear","max_tokens":5000,"stream":true}}',
    "constructor": b'{"constructor":{"prototype":{"model":"dear","max_tokens":5000,"n":50}},"model":"p/cheap"}',
    "toString": b'{"model":"p/cheap","toString":null,"valueOf":null,"hasOwnProperty":1,"toJSON":{"model":"dear"}}',
    "class of Ruby": b'{"json_class":"Object","model":"p/cheap"}',
    "type of .NET": b'{"$type":"x","$ref":"#","model":"p/cheap"}',
    "merge of YAML": b'{"<<":{"model":"dear"},"model":"p/cheap"}',
    "extra body": b'{"model":"p/cheap","extra_body":{"model":"dear","max_tokens":5000}}',
}


def keys() -> Iterator[Case]:
    for name, key in SPELLED.items():
        yield Case(f"key: {name}", with_key(key))
        yield Case(f"key: {name}, first", b"{" + key + b':"dear",' + CHEAP + b"}")
    for name, key in LIMITS.items():
        yield Case(f"limit: {name}", with_key(key, b"5000"))
    for name, key in STREAMS.items():
        yield Case(f"stream: {name}", with_key(key, b"true"))
        yield Case(f"stream: {name}, and plain", b'{"stream":false,' + with_key(key, b"true")[1:])
    for letters in (1 << 10, 1 << 16, 1 << 20):
        long, name = b"m" * letters, f"key of {letters}"
        yield Case(f"{name} letters", with_key(b'"' + long + b'"'))
        yield Case(f"{name} letters, then another", b'{"' + long + b'":1,"model":"dear",' + CHEAP + b"}")
        yield Case(f"{name} backslashes", b'{"' + b"\\" * letters + b'":1,' + CHEAP + b',"y":"\\""}')
    for depth in (100, 1000, 2000):
        opened, closed = b"[" * depth, b"]" * depth
        objects = b'{"model":' * depth + b"1" + b"}" * depth
        yield Case(f"{depth} arrays", b'{"x":' + opened + b'{"model":"dear"}' + closed + b"," + CHEAP + b"}")
        yield Case(f"{depth} objects", b'{"x":' + objects + b"," + CHEAP + b"}")
        yield Case(f"{depth} arrays that stay open", b"{" + CHEAP + b',"x":' + opened + b',"model":"dear"}')
    yield Case("99 limits", b'{"model":"p/cheap"' + b',"max_tokens":1' * 99 + b"}")
    yield Case("200 limits", b'{"model":"p/cheap"' + b',"max_tokens":1' * 199 + b',"max_tokens":5000}')


# ---------------------------------------------------------------------- values

NUMBERS = (
    b"5000", b"5e3", b"5E3", b"5.0e+3", b"5000.0", b"50000e-1", b"0.5e4", b"5e300", b"1e999", b"-1e999",
    b'"5000"', b'"5e3"', b'"5_000"', b'" 5000 "', b'"0x1388"', b'"+5000"', b'"5,000"', b'"Infinity"',
    b'"inf"', b'"nan"', b'"5000abc"', rb'"\u0035000"', '"٥٠٠٠"'.encode(), '"５０００"'.encode(), b"5_000",
    b"0x1388", b"+5000", b"05000", b"005", b"0o11610", b"0b1001110001000", b"5000n", b"5000L", b"5000.",
    b".5e4", b"5000/1", b"(5000)", b"50 00", b"50\n00", b"true", b"[5000]", b'["5000"]', b'{"a":5000}', b"[]",
    b"99999999999999999999", b"1" * 400, b"4294967396", b"18446744073709551716", b"100.9",
    b"100.00000000000001", b"-0", b"1e2", b"100e0", b"1E+02", b'"100"', b"5000,", b"5000;", b"5000'",
    b"5000//",
)  # fmt: skip
FLAGS = (
    b"1", b'"true"', b'"false"', b'"1"', b'"yes"', b'"on"', b'"t"', b'""', b'"0"', b"0", b"0.0", b"2", b"1.0",
    b"[]", b"[false]", b"{}", b"null", b"True", b"TRUE", b"true1", b"truee", b"tru", b"t", b"!0", b'"True"',
    b" true", b"\ttrue", b"\ntrue ", b"true\n",
)  # fmt: skip


TWICE = {
    "large last": (b"5", b"5000"), "large first": (b"5000", b"5"), "text last": (b"5", b'"5000"'),
    "null last": (b"5000", b"null"), "null first": (b"null", b"5000"), "no number last": (b"5", b'"x"'),
}  # fmt: skip


def values() -> Iterator[Case]:
    for value in NUMBERS:
        yield Case(f"max_tokens of {value[:40]!r}", with_key(b'"max_tokens"', value))
    for word in (b"max_completion_tokens", b"max_output_tokens", b"n", b"best_of"):
        for value in (b"5000", b'"5000"', b"5e3", b'"5_000"', b"true", b"[5000]"):
            yield Case(f"{word.decode()} of {value!r}", with_key(b'"' + word + b'"', value))
    for name, (first, second) in TWICE.items():
        for other in (b'"max_tokens"', rb'"max\u005ftokens"', b'"Max_Tokens"'):
            body = b'{"max_tokens":' + first + b"," + with_key(other, second)[1:]
            yield Case(f"limit twice: {name}, {other.decode()}", body)
    yield Case("limits: one large", b'{"max_tokens":5,"max_completion_tokens":5000,' + CHEAP + b"}")
    yield Case("n twice", b'{"n":50,"n":1,' + CHEAP + b"}")
    yield Case("n twice, large last", b'{"n":1,"n":50,' + CHEAP + b"}")
    for value in FLAGS:
        yield Case(f"stream of {value!r}", with_key(b'"stream"', value))
    for first, second in (
        ("true", "false"),
        ("false", "true"),
        ("true", "null"),
        ("null", "true"),
        ("true", "1"),
    ):
        body = f'{{"stream":{first},"stream":{second},{CHEAP.decode()}}}'
        yield Case(f"stream twice: {first}, {second}", body.encode())
    yield Case("stream twice, one of them escaped", rb'{"stream":false,"strea\u006d":true,' + CHEAP + b"}")


# ---------------------------------------------------------------------- beside the body

PARAMETERS = (
    b"model=dear", b"model=p/dear", b"%6dodel=dear", b"%6D%6F%64%65%6C=dear", b"mode%6C=dear", b"Model=dear",
    b"model[]=dear", b"model%5B%5D=dear", b"model[0]=dear", b"x=1&model=dear", b"x=1;model=dear",
    b"beta=true&model=dear", b"beta=true%26model=dear", b"beta=true;model=dear", b"&&model=dear",
    b"?model=dear", b"model=dear#x", b"%20model=dear", b"+model=dear", b"model+=dear", b"model%00=dear",
    b"model%00x=dear", b"%EF%BB%BFmodel=dear", b"__proto__[model]=dear",
    b"constructor[prototype][model]=dear", b"model=dear&model=cheap", b"model=cheap&model=dear",
    b"max_tokens=5000", b"max%5Ftokens=5000", b"n=50", b"stream=true", b"api-version=1&max_tokens=5000",
    b"include[]=1&model=dear", b"include%5B%5D=x&%6dodel=dear", b"beta=1&beta[model]=dear",
    b"api-version=1%0d%0aX-Evil:%20evil", b"model", b"model=", b"limit=1&order=x&after=y&model=dear",
    b"key=evil", b"api_key=evil", b"model=dear&beta=true", b"%2566model=dear", b"%u006dodel=dear",
    b"mod\xc3\xa9l=dear", b"beta=" + b"x" * 3000 + b"&model=dear",
)  # fmt: skip


def beside() -> Iterator[Case]:
    for query in PARAMETERS:
        yield Case(f"query: {query[:60].decode('latin-1')}", PLAIN, query=query)
    for name in (*STEERING, *IDENTITY):
        yield Case(f"header: {name}", PLAIN, (*JSON, name.encode() + b": " + EVIL))
    config = (
        b'{"provider":"openai","api_key":"k","custom_host":"%b","override_params":{"model":"dear"}}' % EVIL
    )
    yield Case("header: a configuration", PLAIN, (*JSON, b"x-portkey-config: " + config))
    named = b"Connection: X-Evil, Content-Type"
    yield Case("header: named in Connection", PLAIN, (*JSON, named, b"X-Evil: " + EVIL))


def split() -> Iterator[Case]:
    """Some of the others, byte by byte: what is found when what came before is gone already."""
    names = {
        "key: invalid escape", "key: escaped to the end", "key: overlong", "keys: twice",
        "limit: invalid escape", "comment: block with a quote", "comment: before the colon",
        "0x01 between key and colon", "0x00 between the second key and colon", "loose: second object",
        "loose: single quotes around what counts", "utf-16-le with CJK as application/json",
        "stream twice: true, false", "max_tokens of b'5000'", "mark of UTF-8 within the second key",
        "loose: no comma", "loose: closed by another",
    }  # fmt: skip
    chosen = [case for case in whole() if case.name in names]
    assert {case.name for case in chosen} == names, names - {case.name for case in chosen}
    for case in chosen:
        yield case._replace(name=f"{case.name}, slowly", slowly=True)
        yield case._replace(name=f"{case.name}, chunk by chunk", chunk=1)
        yield case._replace(name=f"{case.name}, chunks slowly", chunk=3, slowly=True)


def whole() -> Iterator[Case]:
    for part in (honest, encodings, types, between, keys, values, beside):
        yield from part()
    for family, bodies in {"comment": COMMENTS, "loose": LOOSE, "keys": KEYS}.items():
        for name, body in bodies.items():
            yield Case(f"{family}: {name}", body)


CASES = [*whole(), *split()]
assert len({case.name for case in CASES}) == len(CASES)
