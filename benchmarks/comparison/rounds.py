"""Goes round the targets and keeps the results. One that fails is noted and does not stop the rest."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any

from comparison.figures import median
from comparison.measure import measure, warm_up
from comparison.report import report
from comparison.scenarios import SCENARIOS
from comparison.specs import Spec, takes
from comparison.targets import Target
from comparison.upstream import Mock, TlsFront

SHOWN = {
    "closed": ("rps", "p50_us", "p99_us", "added_p50_us", "added_p99_us", "cpu_us_per_req"),
    "open": ("rps", "p50_us", "p99_us", "late_p99_us", "cpu_us_per_req"),
    "stream": (
        "chunks_per_s", "streams_per_s", "ttfb_p50_us", "ttfb_p99_us", "gap_excess_p99_us",
        "cpu_us_per_chunk", "kib_per_stream",
    ),
}  # fmt: skip
PORTS_EACH = 10


def say(*words: object) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


class Results:
    """results.json and results.md of a folder, written after each measurement."""

    def __init__(self, folder: Path, fresh: bool = False) -> None:
        self.folder = folder
        file = folder / "results.json"
        self.all: dict[str, Any] = {"meta": {}, "targets": {}}
        if file.exists() and not fresh:
            self.all = json.loads(file.read_text())

    def of(self, name: str) -> dict[str, Any]:
        return self.all["targets"].setdefault(name, {})

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "results.json").write_text(json.dumps(self.all, indent=1, ensure_ascii=False))
        (self.folder / "results.md").write_text(report(self.all))


class Rounds:
    def __init__(
        self,
        args: argparse.Namespace,
        specs: dict[str, Spec],
        names: list[str],
        scenarios: list[str],
        results: Results,
    ) -> None:
        self.args, self.specs, self.results = args, specs, results
        self.names, self.scenarios = names, scenarios
        self.live: list[Target] = []
        self.failures = 0

    def run(self) -> int:
        """How many targets or scenarios failed."""
        self.mock = Mock(self.args)
        front = None
        try:
            front = self._tls_front()
            if self.args.interleave:
                self._in_turns()
            else:
                self._one_by_one()
        finally:
            for target in self.live:
                target.stop()
            if front:
                front.stop()
            self.mock.stop()
            self.results.save()
        return self.failures

    def _tls_front(self) -> TlsFront | None:
        wanted = [s for s in self.scenarios if SCENARIOS[s].on_request]
        if not any(takes(self.specs[n], s) for n in self.names for s in wanted):
            return None
        try:
            front = TlsFront(self.args)
            self.mock.helpers.append(front.proc.pid)
            return front
        except Exception as error:  # its scenario will fail, the others need not
            say("no TLS front:", error)
            return None

    def _in_turns(self) -> None:
        """All are started; who is not measured is stopped with SIGSTOP."""
        for i, name in enumerate(self.names):
            if target := self._up(i, name):
                self.live.append(target)
                target.signal(signal.SIGSTOP)
        for scenario in self.scenarios:
            for k in range(self.args.runs):
                for target in self.live:
                    if takes(self.specs[target.name], scenario):
                        target.signal(signal.SIGCONT)
                        time.sleep(0.2)
                        self._guarded(target, scenario, k)
                        time.sleep(0.2)
                        target.signal(signal.SIGSTOP)

    def _one_by_one(self) -> None:
        for i, name in enumerate(self.names):
            target = self._up(i, name)
            if not target:
                continue
            self.live = [target]
            for scenario in self.scenarios:
                for k in range(self.args.runs):
                    if takes(self.specs[name], scenario):
                        self._guarded(target, scenario, k)
            target.stop()

    def _up(self, index: int, name: str) -> Target | None:
        if not any(takes(self.specs[name], s) for s in self.scenarios):
            say(name, "takes part in none of these scenarios")
            return None
        target = Target(name, self.specs[name], self.args, self.args.base_port + PORTS_EACH * index)
        entry = self.results.of(name)
        try:
            target.start()
        except BaseException as error:
            target.stop()
            if not isinstance(error, Exception):
                raise
            say(name, "FAILED:", error)
            entry["failed"] = str(error)[:600]
            self.failures += 1
            self.results.save()
            return None
        say(name, "up", target.info)
        for stale in ("failed", "body_100k", "body_2m"):
            entry.pop(stale, None)
        entry.update(
            target.info, commit=self.results.all["meta"]["commit"], date=self.results.all["meta"]["date"]
        )
        entry.setdefault("scenarios", {})
        return target

    def _guarded(self, target: Target, scenario: str, k: int) -> None:
        try:
            self._measured(target, scenario, k)
        except Exception as error:
            say(target.name, scenario, "FAILED:", repr(error))
            self.results.of(target.name).setdefault("scenario_errors", {})[scenario] = repr(error)[:400]
            self.failures += 1

    def _measured(self, target: Target, scenario: str, k: int) -> None:
        entry = self.results.of(target.name)
        if k == 0:  # what an earlier call measured must not stand beside what this one fails at
            entry["scenarios"].pop(scenario, None)
            entry.get("scenario_errors", {}).pop(scenario, None)
            if SCENARIOS[scenario].restart and not target.direct:
                target.restart()
                entry.update(target.info)
            if not target.direct:
                warm_up(target, scenario)
        time.sleep(0.3)
        run = measure(target, self.mock, scenario, self.args.secs)
        run["round"] = k
        cell = entry["scenarios"].setdefault(scenario, {"title": SCENARIOS[scenario].title, "runs": []})
        cell["runs"].append(run)
        cell["median"] = median(cell["runs"])
        if scenario == "a":
            entry["upstream_conns"] = cell["median"]["upstream_new_conns"]
        if not target.direct:
            entry["rss_end_mb"] = run["rss_mb"]
        shown = " ".join(f"{key}={run[key]}" for key in SHOWN[SCENARIOS[scenario].kind] if key in run)
        say(
            f"{target.name} ({scenario}) run {k + 1}: {shown} proxy={run['proxy_cpu_pct']}%",
            f"load={run['cpu_load_busy']}% rss={run.get('rss_peak_mb')}",
            f"err={run['errors']} bound={run['bound']}",
        )
        self.results.save()
