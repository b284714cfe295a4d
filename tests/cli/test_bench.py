"""The options of ``tokenhub bench``: what they plan."""

from __future__ import annotations

import io
import json

import pytest

from proxy.cli import bench_report
from proxy.cli.bench_load import Plan
from proxy.cli.main import main


@pytest.fixture
def planned(monkeypatch):
    """The plan of a command line, which is not carried out."""
    plans: list[tuple[Plan, str | None, bool]] = []

    async def run(plan, config, strategy, *, as_json):
        plans.append((plan, strategy, as_json))
        return 0

    monkeypatch.setattr(bench_report, "run", run)

    def plan_of(*argv: str) -> Plan:
        assert main(["bench", *argv, "--url", "http://h:1"]) == 0
        plan_of.strategy, plan_of.as_json = plans[-1][1:]
        return plans[-1][0]

    return plan_of


def test_by_default_it_is_little_and_at_a_rate_there_are_connections_enough(planned):
    plan = planned()
    assert (plan.requests, plan.concurrency, plan.rate, plan.duration_s) == (100, 10, None, None)
    assert (plan.path, plan.endpoint, plan.is_stream) == ("/v1/chat/completions", "chat", False)
    body = json.loads(plan.body)
    assert body.keys() == {"model", "messages"}
    assert body["model"] == plan.model == "auto"
    assert (planned.strategy, planned.as_json) == (None, False)
    assert planned("m", "--rate", "5").concurrency == 1000


def test_all_of_it(planned):
    argv = ["m", "--duration", "2m", "--concurrency", "7", "--rate", "2.5", "--stream", "--timeout", "5s"]
    argv += ["--strategy", "cost", "--json"]
    plan = planned(*argv)
    assert (plan.model, plan.requests, plan.duration_s, plan.concurrency) == ("m", None, 120.0, 7)
    assert (plan.rate, plan.is_stream, plan.timeout_s) == (2.5, True, 5.0)
    assert (planned.strategy, planned.as_json) == ("cost", True)
    body = json.loads(plan.body)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


@pytest.mark.parametrize("count", [1, 66, 67, 100_000])
def test_prompts_of_a_length(planned, count):
    body = json.loads(planned("--prompt-bytes", str(count)).body)
    assert len(body["messages"][0]["content"].encode()) == count
    body = json.loads(planned("m", "--endpoint", "embeddings", "--prompt-bytes", str(count)).body)
    assert len(body["input"]) == count


def test_a_body_of_ones_own(planned, tmp_path, monkeypatch):
    path = tmp_path / "body.json"
    path.write_text('{"model": "own", "messages": [], "temperature": 0.5}')
    assert json.loads(planned("--body", str(path)).body) == {
        "model": "own", "messages": [], "temperature": 0.5,
    }  # fmt: skip
    assert json.loads(planned("m", "--body", str(path)).body)["model"] == "m"
    monkeypatch.setattr("sys.stdin", io.StringIO('{"messages": []}'))
    assert json.loads(planned("--body", "-").body)["model"] == "auto"


@pytest.mark.parametrize(("argv", "said"), [
    (["--endpoint", "embeddings"], "embeddings need a model: name one"),
    (["--body", "/nowhere/x.json"], "can't read /nowhere/x.json: No such file"),
])  # fmt: skip
def test_what_cannot_be_planned(capsys, argv, said):
    assert main(["bench", *argv, "--url", "http://h:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"tokenhub: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("span", ["0", "0ms"])
def test_no_time_at_all(capsys, span):
    for option in ("--duration", "--timeout"):
        with pytest.raises(SystemExit) as caught:
            main(["bench", option, span])
        assert caught.value.code == 2
        assert "must be longer than nothing" in capsys.readouterr().err
