"""A real Prometheus scrapes the installed program, with configuration, rules and dashboard of deploy/."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import pytest
import yaml

from tests.e2e import Gateway, free_port
from tests.e2e.asking import ask, fetch, wait_for
from tests.e2e.one_provider import USD, provider_of
from tests.support.deploy import DEPLOY, metrics_of, needs_prometheus, promtool, queries, read_yaml, rules

pytestmark = needs_prometheus

TOKEN = "s3cret"
TEXT = """
[admin]
listen = "127.0.0.1:{admin}"
token_env = "TOKENHUB_ADMIN_TOKEN"
[state]
path = "t.db"
[usage]
tags = ["team"]
metric_tags = ["team"]
[providers]
p = {{ base_url = "{url}", auth = "none" }}
dead = {{ base_url = "http://127.0.0.1:{dead}/v1", auth = "none" }}
[models]
"p/m" = {{ input_price = 1, output_price = 2 }}
"dead/m" = {{}}
"""
GOOD, FAILED, UNKNOWN = 60, 7, 3


def read(url: str) -> bytes:
    with closing(urllib.request.urlopen(url, timeout=10)) as answer:
        return answer.read()


class Prometheus:
    """It runs in a folder, as a context."""

    def __init__(self, folder: Path, target: str) -> None:
        [config] = read_yaml(DEPLOY / "prometheus/prometheus.yml")
        often = ("scrape_interval", "scrape_timeout", "evaluation_interval")
        config["global"] = dict.fromkeys(often, "500ms")
        config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
        [scraped] = config["scrape_configs"]
        (folder / "token").write_text(TOKEN)
        scraped["authorization"]["credentials_file"] = str(folder / "token")
        scraped["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        promtool("check", "config", str(folder / "prometheus.yml"))
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self._folder = folder
        self._command = [
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}", "--log.level=warn",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            wait_for(self._is_ready, 30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            return bool(read(f"{self.url}/-/ready"))
        except OSError:
            return False

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        try:
            answer = json.loads(read(f"{self.url}/api/v1/{path}?{urlencode(query)}"))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def value(self, expr: str) -> float | None:
        """Of an expression with one sample; None: it has none."""
        result = self.ask("query", query=expr)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Scene(NamedTuple):
    prometheus: Prometheus
    exposed: str  # what /metrics said in the end


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("prometheus")
    admin = free_port()
    with provider_of() as url:
        text = TEXT.format(admin=admin, url=url, dead=free_port())
        with (
            Gateway(folder, text, "--workers", "2", TOKENHUB_ADMIN_TOKEN=TOKEN) as gateway,
            Prometheus(folder, f"127.0.0.1:{admin}") as prometheus,
        ):
            operator = {"admin": True, "Authorization": f"Bearer {TOKEN}"}
            settings = {"name": "app", "monthly_usd": 0.02, "monthly_tokens": 9_000_000, "tags": "team=a"}
            key = json.loads(fetch(gateway, "POST", "/admin/v1/keys", settings, **operator).body)["key"]

            def send(good: int, failed: int, unknown: int) -> None:
                for model, status, count in (
                    ("p/m", 200, good),
                    ("dead/m", 503, failed),
                    ("x", 404, unknown),
                ):
                    assert {ask(gateway, model, key) for _ in range(count)} <= {status}

            def has(total: int) -> bool:
                return prometheus.value("sum(tokenhub_requests_total)") == total

            # A counter that begins above zero did not rise: what was before its first sample is in no rate.
            send(1, 1, 0)
            wait_for(lambda: has(2), 20)
            send(GOOD - 1, FAILED - 1, UNKNOWN)
            wait_for(lambda: has(GOOD + FAILED + UNKNOWN), 20)
            wait_for(lambda: prometheus.value("job:tokenhub_errors:ratio_rate5m") is not None, 20)
            yield Scene(prometheus, fetch(gateway, "GET", "/metrics", **operator).body.decode())


def test_without_the_token_there_are_no_metrics(scene):
    [target] = scene.prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    with pytest.raises(urllib.error.HTTPError) as caught:
        read(target["scrapeUrl"])
    caught.value.close()
    assert caught.value.code == 401


@pytest.mark.parametrize(
    ("expr", "value"),
    [
        ('tokenhub_requests_total{provider="p", model="p/m", key="app", status="200"}', GOOD),
        ('tokenhub_errors_total{provider="dead", model="dead/m", key="app", status="503"}', FAILED),
        ('tokenhub_errors_total{provider="", model="", status="404"}', UNKNOWN),
        ('tokenhub_tokens_total{model="p/m", key="app", type="input"}', 100 * GOOD),
        ('tokenhub_tokens_total{model="p/m", key="app", type="output"}', 50 * GOOD),
        ('round(tokenhub_cost_usd_total{model="p/m", key="app"}, 1e-9)', pytest.approx(USD * GOOD)),
        ('round(tokenhub_tag_cost_usd_total{tag="team", value="a"}, 1e-9)', pytest.approx(USD * GOOD)),
        ('gen_ai_client_token_usage_sum{gen_ai_request_model="p/m", gen_ai_token_type="output"}', 50 * GOOD),
        ('gen_ai_server_time_to_first_token_count{gen_ai_provider_name="p"}', GOOD),
        ("sum(gen_ai_server_request_duration_count)", GOOD),
        ('tokenhub_attempt_failures_total{model="dead/m", reason="connect"}', FAILED),
        ('tokenhub_ejected{model="dead/m"}', 1),
        ('tokenhub_ejected{model="p/m"}', 0),
        ('tokenhub_key_month_tokens{key="app"}', 150 * GOOD),
        ('tokenhub_key_month_usd_limit{key="app"}', 0.02),
        ("sum(tokenhub_requests_in_flight)", 0),
        ("tokenhub_workers", 2),
        ("tokenhub_ready", 1),
        ("tokenhub_ledger_unwritten_lines", 0),
        ("tokenhub_event_loop_lag_seconds_count > bool 10", 1),
        ("tokenhub_overhead_seconds_count >= bool 60", 1),
        ("(time() - tokenhub_start_time_seconds) < bool 300", 1),
        ("tokenhub_build_info", 1),
    ],
)
def test_what_was_sent_is_what_it_has(scene, expr, value):
    assert scene.prometheus.value(expr) == value


def test_the_rules_find_their_series(scene):
    groups = scene.prometheus.ask("rules")["groups"]
    wait_for(lambda: all(group["evaluationTime"] for group in scene.prometheus.ask("rules")["groups"]))
    found = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert len(found) == len(rules())
    assert {name: rule["health"] for name, rule in found.items()} == dict.fromkeys(found, "ok")
    assert {rule["lastError"] for rule in found.values() if "lastError" in rule} == set()
    prometheus = scene.prometheus
    errors = prometheus.value("job:tokenhub_errors:ratio_rate5m")
    assert errors == pytest.approx((FAILED - 1) / (GOOD - 1 + FAILED - 1), abs=0.03)  # by when each was seen
    for name in ("tokenhub_overhead_seconds", "tokenhub_event_loop_lag_seconds"):
        assert 0 < prometheus.value(f"instance:{name}:p99_rate5m") < 1
    p95 = 'model:gen_ai_server_time_to_first_token:p95_rate10m{gen_ai_provider_name="p"}'
    assert prometheus.value(p95) > 0
    wait_for(lambda: states(prometheus)["TokenHubProviderEjected"] != "inactive")
    told = states(prometheus)
    assert told["TokenHubProviderEjected"] == "pending"  # for two minutes
    assert (told["TokenHubKeyNearLimit"], told["TokenHubKeyAtLimit"]) == ("inactive", "inactive")
    for name in ("TokenHubDown", "TokenHubAbsent", "TokenHubNotReady", "TokenHubLedgerUnwritten"):
        assert told[name] == "inactive"


def states(prometheus: Prometheus) -> dict[str, str]:
    """Of the alerts."""
    groups = prometheus.ask("rules", type="alert")["groups"]
    return {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}


# Nothing was streamed, everything can be used, and no key is refused.
EMPTY = {"Usual time per output token, A", "Not usable, or key refused, B"}


@pytest.mark.parametrize("name", queries())
def test_each_panel_of_the_dashboard_shows_something(scene, name):
    result = scene.prometheus.ask("query", query=queries()[name])["result"]
    assert bool(result) == (name not in EMPTY), queries()[name]


def test_rules_and_dashboard_use_what_is_exposed(scene):
    exposed = set()
    for line in scene.exposed.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            parts = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
            exposed |= {name + part for part in parts}
    used = set().union(*map(metrics_of, [*queries().values(), *(rule["expr"] for rule in rules())]))
    assert used
    assert used <= exposed
    shown = set().union(*map(metrics_of, queries().values()))
    unused = {name for name in exposed if not name.endswith(("_sum", "_count"))} - shown
    assert unused == set()  # what is measured can be seen


def test_the_exposition_is_as_prometheus_likes_it(scene):
    assert promtool("check", "metrics", text=scene.exposed) == ""
