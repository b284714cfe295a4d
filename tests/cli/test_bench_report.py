"""What is printed of a load, and its exit codes. A run at a real terminal: tests/e2e/test_terminal.py."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from random import Random

import pytest

from proxy.cli.bench_load import Load
from proxy.cli.bench_report import progress, progress_text, run, show_summary
from proxy.cli.bench_stats import Outcome
from proxy.cli.tables import cells
from tests.support.chats import answer, config, plan_of, simulated
from tests.support.fakes import Call, until
from tests.support.terminal import Stream


@pytest.fixture
async def plan(provider, start):
    provider.script = answer
    return plan_of(await start(config(provider)))


async def test_a_run_for_people_and_for_programs(plan, capsys):
    assert await run(plan, None, "cost", as_json=False) == 0
    out, err = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert (lines["gateway"], lines["load"]) == (plan.target.url, "mock/m, chat, 3 at a time")
    assert lines["requests"].startswith("10 in ")
    assert lines["requests"].endswith(" s, 0 of them failed")
    assert lines["tokens"] == "10,000 in (6,000 cached), 5,000 out"
    assert lines["cost"] == "at most $0.020000 by list prices"
    assert lines["MS"].split() == ["P50", "P90", "P95", "P99", "MAX", "MEAN"]
    assert err == (
        f"tokenhub: 10 requests, 3 at a time, to {plan.target.url}; Ctrl-C ends it\n"
        "tokenhub: these answers are real: their providers charge for them\n"
    )
    assert await run(plan, None, None, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["interrupted"]) == (10, False)


async def test_charges_are_warned_of_only_where_answers_are_real(provider, start, capsys, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    body = b'{"model":"mock/m","messages":[{"role":"user","content":"x"}]}'
    plan = plan_of(await start(simulated(provider)), body=body)
    assert await run(plan, None, None, as_json=True) == 0
    assert "charge" not in capsys.readouterr().err
    provider.script = answer
    terminal = Stream(True)
    monkeypatch.setattr("sys.stderr", terminal)
    assert await run(plan_of(await start(config(provider))), None, None, as_json=True) == 0
    # The line of the progress makes room for it.
    assert terminal.getvalue().count("\r\x1b[Ktokenhub: these answers are real: their providers charge") == 1


async def test_a_failed_request_is_exit_code_1(plan, provider, capsys):
    async def fail(call: Call) -> None:
        await call.request()
        await call.answer(b'{"error":{"code":"bad","message":"why"}}', status=b"400 No")
        await answer(call)

    provider.script = fail
    assert await run(plan, None, None, as_json=False) == 1
    out = capsys.readouterr().out
    assert "FAILED  REASON   THE FIRST SAID\n" in out
    assert "  400 bad  why\n" in out


async def test_ended_early_is_exit_code_130(plan, provider, capsys):
    begun = asyncio.Event()

    async def hold(call: Call) -> None:
        await call.request()
        begun.set()
        await call.gone()

    provider.script = hold
    running = asyncio.create_task(run(plan, None, None, as_json=False))
    await asyncio.wait_for(begun.wait(), 5)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 5) == 130
    assert "ended early; 3 requests were under way and don't count" in capsys.readouterr().out


def load_of(plan, *outcomes: Outcome) -> Load:
    load = Load(plan, None, Random(1), lambda: None)
    load.begun = 100.0
    for outcome in outcomes:
        load.results.add(outcome)
    return load


async def test_the_line_of_a_number_and_of_a_duration(plan):
    load = load_of(plan, Outcome(0.012), Outcome(0.031), Outcome(1.0, "connect"))
    text = progress_text(load, 106.0, 100)
    assert text == "━" * 6 + "─" * 14 + " 3/10  0.5/s  1 failed  p50 12.0 ms  p99 31.0 ms  0:06"
    assert progress_text(load, 106.0, 60) == text[21:]  # without a bar
    for width in (1, 20, 40):
        assert cells(progress_text(load, 106.0, width)) <= width
    assert progress_text(load_of(plan), 100.0, 80).endswith(" 0/10  0.0/s  0 failed  0:00")
    load.begun = 0.0
    assert "0.0/s" in progress_text(load, 5.0, 80)  # nothing has begun
    load = load_of(plan._replace(requests=None, duration_s=60.0), *[Outcome(0.5)] * 1200)
    assert progress_text(load, 130.0, 100).startswith("━" * 10 + "─" * 10 + " 1,200  40.0/s  0 failed")
    assert progress_text(load, 500.0, 100).startswith("━" * 20 + " ")
    assert progress_text(load_of(load.plan), 100.0, 100).startswith("─" * 20)


async def test_a_line_is_kept_on_a_terminal_and_nothing_of_it_elsewhere(plan, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal, pipe = Stream(True), io.StringIO()
    async with progress(load_of(plan), terminal):
        await until(terminal.getvalue)
    assert terminal.getvalue().startswith("\r─")
    assert terminal.getvalue().endswith("\x1b[K\r\x1b[K")
    assert "\n" not in terminal.getvalue()
    async with progress(load_of(plan), pipe):
        await asyncio.sleep(0)
    assert pipe.getvalue() == ""


SUMMARY = {
    "url": "http://h", "model": "m", "endpoint": "chat", "stream": True, "concurrency": 2, "rate": 5.0,
    "requests": 10, "failed": 0, "failures": [], "elapsed_s": 1.5, "requests_per_s": 6.7, "latency_ms": None,
    "ttft_ms": None, "gap_ms": None, "gateway_ms": None, "tokens": None, "providers": {}, "failed_over": 0,
    "simulated": 0, "cut_off": 0, "unsent": 0, "client_cpu": 0.1, "usd": 0.0, "usd_is_most": False,
    "interrupted": False,
}  # fmt: skip
TOKENS = {"input": 1, "cached": 0, "output": 2, "reasoning": 0}


@pytest.mark.parametrize(("more", "said"), [
    ({}, "load        m, chat streams, 5 a second\n"),
    ({"tokens": TOKENS, "usd": None}, "cost        unknown\n"),
    ({"tokens": TOKENS, "usd": 1.5}, "cost        $1.500000 by list prices\n"),
    ({"tokens": TOKENS, "simulated": 10}, "cost        nothing: all answers are SIMULATED\n"),
    ({"tokens": TOKENS, "simulated": 8, "failed": 2}, "cost        nothing: all answers are SIMULATED\n"),
    ({"simulated": 4}, "\n4 answers are SIMULATED\n"),
    ({"failed_over": 3}, "failed over  3\n"),
    ({"providers": {"a": 7, "b": 3}}, "by provider  a 7, b 3\n"),
    ({"interrupted": True, "cut_off": 2}, "ended early; 2 requests were under way and don't count\n"),
    ({"unsent": 9}, "9 requests were due and not sent, for want of a free one of 2 connections"),
    ({"client_cpu": 0.95}, "the client took 95% of a core"),
])  # fmt: skip
def test_what_is_said(capsys, more, said):
    show_summary(SUMMARY | more)
    assert said in capsys.readouterr().out


def test_what_others_said_is_one_line(capsys):
    show_summary(SUMMARY | {"failures": [{"count": 1, "reason": "500", "message": "a\n\x1b[2Jb"}]})
    assert capsys.readouterr().out.splitlines()[-1] == "     1  500     a  [2Jb"
