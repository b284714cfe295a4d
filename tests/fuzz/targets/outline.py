"""The model in a body: Python and C against each other, both against a parser on valid texts, and against all
parsers on whatever they take."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from proxy.errors import BadRequest
from proxy.wire import outline as outlines
from proxy.wire.model_scanner import ModelScanner
from proxy.wire.outline import (
    ALL_KEYS,
    ENDED,
    ESCAPED,
    IN_STRING,
    IN_VALUE,
    LONGEST_KEY_BYTES,
    OUTSIDE,
    VALUE_NEXT,
    outline_slowly,
)
from tests.fuzz.source import pieces
from tests.readers.cases import SPELLED, wide
from tests.readers.inprocess import disagreements

ASKED = {
    "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "stream",
    "stream_options", "tools",
}  # fmt: skip
SEEDS = [
    b'\x00{"model":"openai/gpt-4o","messages":[{"role":"user","content":"model"}],"stream":true,"n":1}',
    b'\x01 {"a":[{"model":"x"}],"model" : "y\\"z" }', b'\x02{"model":"a","model":"b"}',
    b'\x03{"\\u006dodel":"a"}', b'\x04{"Model":"a","model":null,"max_tokens":5,"tools":[]}',
    b'\x87{"x":"\\\\","model":"\xc3\xa9"}', b"\x05[1]", b'\x01{"st\xef\xac\x86":1,"\xef\xac\x86ream":true}',
    b"\x01" + wide("utf-16-le", '"model":"b"'), b'\x03{"model":"a"/*"*/,"model":"b"/*"*/}',
    b'\x00{"model"\x01:"b","model":"a"}', b'\x00{"a":[]}{"model":"b"}',
    *(b'\x02{"model":"a",' + key + b':"b"}' for key in SPELLED.values()),
]  # fmt: skip


def _compiled() -> Any:
    """The C version: the installed one, or one made for this run; None without a compiler."""
    if outlines.outline is not outline_slowly:
        return outlines.outline
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source = Path(outlines.__file__).with_name("_outline.c")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "_outline.so"
        include = sysconfig.get_paths()["include"]
        command = [compiler, "-shared", "-fPIC", "-O1", f"-I{include}", str(source), "-o", str(made)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        spec = importlib.util.spec_from_file_location("_outline", made)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.outline


COMPILED = _compiled()
MODES = (OUTSIDE, IN_STRING, ESCAPED, ENDED, IN_VALUE, IN_VALUE + IN_STRING, IN_VALUE + ESCAPED, VALUE_NEXT)


def test_one(data: bytes) -> None:
    if not data:
        return
    text = data[1:]
    if COMPILED is not None:
        for mode in MODES:
            for pos, opened in ((0, b""), (0, b"{"), (len(text) // 2, b"{[")):
                for wanted in (ALL_KEYS, bytes(256)):
                    found = outline_slowly(text, pos, opened, mode, wanted)
                    assert COMPILED(text, pos, opened, mode, wanted) == found, (pos, opened, mode)
    assert not disagreements(text)
    whole = scanned([text])
    split = scanned(pieces(text, data[0]))
    pairs = top_level(text)
    if pairs is None:
        return
    assert split == whole
    check(text, pairs, *whole)


def scanned(reads: list[bytes]) -> tuple[Any, ...]:
    """The error's code, the span and name of the model, the keys."""
    scanner = ModelScanner()
    try:
        for at, piece in enumerate(reads):
            scanner.feed(piece, at == len(reads) - 1)
    except BadRequest as error:
        assert error.status == 400
        return error.code, None, None
    found = scanner.found
    return None, found and (found.start, found.end, found.name), scanner.keys


def top_level(text: bytes) -> list[tuple[str, Any]] | None:
    """The members of the outermost object of a valid text; None where it is none."""

    class Members(list[Any]):
        pass

    try:
        found = json.loads(text.decode(), object_pairs_hook=Members)
    except (ValueError, RecursionError):
        return None
    return list(found) if isinstance(found, Members) else None


def check(text: bytes, pairs: list[tuple[str, Any]], code: str | None, found: Any, keys: Any) -> None:
    models = [value for key, value in pairs if key == "model"]
    if code is not None:
        asked = sum(key.casefold() in ASKED for key, _ in pairs)
        is_odd = len(models) == 1 and (not isinstance(models[0], str | None) or not _is_usual(models[0]))
        is_long = any(len(json.dumps(key)) > LONGEST_KEY_BYTES or len(key) > 40 for key, _ in pairs)
        is_long = is_long or any(key == "__proto__" or "\0" in key for key, _ in pairs)
        is_loose = b"NaN" in text or b"Infinity" in text  # no JSON, though Python takes it
        assert len(models) > 1 or is_odd or asked > 100 or is_long or is_loose or _is_escaped(text), code
        return
    assert len(models) < 2
    assert (found is None) == (not models)
    if models:
        start, end, name = found
        assert name == models[0]
        assert json.loads(text[start:end]) == models[0]
    told = [json.loads(text[begin:stop]) for begin, stop in keys]
    assert told == [key for key, _ in pairs if key.casefold() in ASKED]


def _is_usual(name: str | None) -> bool:
    """No half of a character, and not too long in any spelling."""
    try:
        return name is None or len(name.encode()) <= 170  # six bytes each are 1,020
    except UnicodeEncodeError:
        return False


def _is_escaped(text: bytes) -> bool:
    """A backslash within what may be the key."""
    return b"\\u" in text
