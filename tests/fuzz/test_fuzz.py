"""The fuzz targets: on their corpus, on what once failed, and for a moment on what chance brings."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import source
from tests.fuzz.source import TARGETS, corpus_of, crashes_of, load, pieces
from tests.support.oracles import Llhttp

ROOT = Path(__file__).parents[2]
each_target = pytest.mark.parametrize("name", TARGETS)
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None
# Two seconds or so for each target, on a quiet machine, and most of that to begin with.
RUNS = 500
# What a corpus may take of the repository.
MOST_CORPUS_BYTES = 500_000


@each_target
def test_the_corpus_and_what_once_failed(name):
    target = load(name)
    inputs = [*target.SEEDS, *corpus_of(name), *(path.read_bytes() for path in crashes_of(name))]
    assert len(target.SEEDS) > 3
    for data in inputs:
        target.test_one(data)


def mutations(inputs: list[bytes]) -> st.SearchStrategy[bytes]:
    """Inputs with a part taken out, doubled, or put in from another."""
    known = st.sampled_from(inputs)

    @st.composite
    def mutated(draw):
        data = draw(known)
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(data)))
            other = draw(st.one_of(known, st.binary(max_size=4)))
            begin = draw(st.integers(0, len(other)))
            part = other[begin : begin + draw(st.integers(0, 40))]
            data = data[:at] + part + data[at + draw(st.integers(0, 8)) :]
        return data

    return mutated()


@each_target
def test_hypothesis_on_the_target(name):
    target = load(name)

    @given(mutations([*target.SEEDS, *corpus_of(name)]))
    @settings(max_examples=60, derandomize=True, database=None)
    def run(data):
        target.test_one(data)

    run()


@pytest.mark.long
@pytest.mark.skipif(not HAS_ATHERIS, reason="atheris is not installed: it has no wheel for this platform")
@each_target
def test_atheris_on_the_target(name):
    command = [sys.executable, "-m", "tests.fuzz.run", name, "--runs", str(RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    executions = int(done.stdout.split()[1].replace(",", ""))
    assert executions >= RUNS


# ---------------------------------------------------------------------- the corpus, and the helpers


def test_the_corpus_is_small_and_nobody_elses():
    files = [path for path in (source.HERE / "corpus").glob("*") if path.is_file()]
    files += [path for name in TARGETS for path in crashes_of(name)]
    assert {path.stem for path in files if path.parent.name == "corpus"} <= set(TARGETS)
    assert {path.name for path in (source.HERE / "crashes").glob("*")} <= set(TARGETS)
    assert len(files) < 400
    assert sum(path.stat().st_size for path in files) < MOST_CORPUS_BYTES


def test_the_corpus_comes_back_as_it_was_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "HERE", tmp_path)
    (tmp_path / "corpus").mkdir()
    inputs = [bytes(range(256)), b"a\nb", b"\\n", b"", b"\r\n\x85\xe2\x80\xa8"]
    source.keep("x", [*inputs, b"a\nb"])
    assert sorted(source.corpus_of("x")) == sorted(inputs)
    assert source.corpus_of("y") == []


@pytest.mark.parametrize("how", range(256))
def test_pieces_are_all_of_it(how):
    for size in (0, 1, 2, 300):
        data = bytes(range(256)) * 2
        parts = pieces(data[:size], how)
        assert b"".join(parts) == data[:size]
        assert size == 0 or all(parts)
        assert len(parts) == (1 if how == 0 or size < 2 else len(parts))


@pytest.mark.parametrize("at_once", [True, False])
def test_where_llhttp_sees_the_end(at_once):
    import httptools

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    reader = Llhttp(httptools.HttpRequestParser, head + b"ab" + head[:9], at_once=at_once)
    assert (reader.body, reader.error) == (b"ab", "")
    assert at_once or reader.end == len(head) + 2
    reader = Llhttp(httptools.HttpRequestParser, head.replace(b"2", b"0"))
    assert reader.end == len(head)
    assert Llhttp(httptools.HttpRequestParser, head + b"a").end is None
    assert Llhttp(httptools.HttpRequestParser, b"POST\r\n\r\n").error
