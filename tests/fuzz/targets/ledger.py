"""Lines of the ledger: a torn one costs itself only, and slices of a file add up to the file."""

from __future__ import annotations

from proxy.usage.tally import Totals, add, cut

_LINES = [
    b'{"t":1790000000.5,"id":"req_1","key":"key_1","model":"o/a","provider":"o","status":200,"input":7,'
    b'"output":3,"cached":1,"nusd":12,"source":"provider"}',
    b'{"t":1790000001.5,"id":"req_2","key":null,"model":"o/b","provider":"p","status":502,"nusd":null}',
    b'{"t":1790086401.5,"id":"req_3","key":"key_1","model":"o/a","provider":"o","status":200,"input":5,'
    b'"output":1,"source":"estimated","hedged":[{"model":"o/b","provider":"p","input":4,"output":1,"nusd":9}]}',
    b'{"t":1790000002,"model":"\\u00e9\\"","provider":"o","reasoning":1,"output":2,"cache_write":3,"status":0,'
    b'"group":"g","alias":"premium","endpoint":"chat","tags":{"team":"a"},"client_tags":{"app":"b"},"saved":4}',
]
# A number for each line of a file; an odd one tears it: it is cut there, and what is left loses its end too.
SEEDS = [
    b"\x00\x02\x04\x06", b"\x10\x00\x21\x02\x43\x04\x65\x06", bytes(range(64)), b"\xff\xff\xfe\xfd",
    b'{"t":1}\n{"t":1e999}\n[1]\n{"t":0,"input":-1}\n{"t":"x","hedged":[1]}\n\n{"t":253402300800.0}',
    b'{"t":5,"tags":{"a":1}}\n{"t":5,"client_tags":[]}\n{"t":5,"tags":null,"alias":7}',
    b'{"t":5,"input":1125899906842624}\n{"t":5,"input":true,"key":5}\n{"t":5,"hedged":{"a":1}}',
]  # fmt: skip


def test_one(data: bytes) -> None:
    raw(data)
    file, whole = written(data)
    expected: Totals = {}
    assert add(whole, expected) == 0
    size = max((len(line) + 1 for line in file.split(b"\n")), default=1)
    for slice_bytes in (size, size + data[0] if data else size, len(file) + 1):
        totals: Totals = {}
        at = torn = 0
        while at < len(file):
            piece = file[at : at + slice_bytes]
            is_end = at + len(piece) == len(file)
            lines, taken, half = cut(piece, len(piece) == slice_bytes, is_end)
            assert 0 < taken <= len(piece)
            torn += half + add(lines, totals)
            at += taken
        assert totals == expected, slice_bytes
        assert torn == file.count(b"\n") + (not file.endswith(b"\n") and bool(file)) - len(whole)


def raw(data: bytes) -> None:
    """Any bytes: no exception, and numbers that SQLite can hold."""
    for is_full in (False, True):
        lines, taken, torn = cut(data, is_full, True)
        assert taken == len(data)
        totals: Totals = {}
        assert 0 <= torn + add(lines, totals) <= data.count(b"\n") + 1
        for group, total in totals.items():
            assert all(name is None or isinstance(name, str) for name in group[1:7])
            assert all(0 <= number < 2**63 for number in total)


def written(data: bytes) -> tuple[bytes, list[bytes]]:
    """A file, and those of its lines that are whole."""
    out, whole = [], []
    for byte in data[:200]:
        line = _LINES[byte >> 1 & 3]
        if byte & 1:
            at = 1 + byte % (len(line) - 2)
            out.append(line[:at] if byte & 8 else line[at:])
        else:
            out.append(line)
            whole.append(line)
    is_ended = not data or data[-1] & 0x80 == 0
    if not is_ended and not data[:200][-1] & 1:
        whole.pop()  # a line without its end is torn, whatever it holds
    return b"\n".join(out) + b"\n" * (is_ended and bool(out)), whole
