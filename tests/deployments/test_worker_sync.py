"""Workers that learn apart and know together: here several in one process, on one piece of memory."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest

from proxy.config.parse import parse
from proxy.control.steps import done
from proxy.deployments.breaker import CLOSED, DUE, OUT, TRIAL
from proxy.deployments.record import TIMEOUT, Record, confirm
from proxy.deployments.row_snapshot import dump
from proxy.deployments.shared_memory import MAX_ROWS
from proxy.deployments.strikes import mark_of
from proxy.deployments.worker_sync import STEP_S, WorkerSync, dump_rows, memory_bytes, restore_rows
from proxy.routing.catalog import Catalog
from proxy.routing.strategy import explain
from proxy.usage.tokens import Usage
from tests.support.deployments import facts, picks

TEXT = """
[providers]
a = {{ base_url = "http://a/v1" }}
b = {{ base_url = "http://b/v1" }}
[models]
"a/m" = {{ input_price = 1, output_price = 1 }}
"b/m" = {{ input_price = 2, output_price = 2 }}
{more}
"""


def catalog(previous: Catalog | None = None, more: str = "", routing: str = "") -> Catalog:
    same = ("a", "b") if previous else ()
    return Catalog(parse(routing + TEXT.format(more=more)), {"a": True, "b": True}, 0, previous, same)


class Worker:
    """``own`` is None for the supervisor."""

    def __init__(self, memory: memoryview, workers: int, own: int | None) -> None:
        self.ejected: list[tuple[str, str]] = []
        self.knowledge = WorkerSync(
            memory, workers, own, lambda member, who, at: self.ejected.append((member.id, who))
        )
        self.use(catalog())

    def use(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.knowledge.adopt(catalog.deployments)
        self.pool = catalog.resolve("m", "chat", None)

    def begin(self, name: str, now: float) -> Record:
        return Record(self.catalog.deployments[f"{name}/m"], "chat", True, now)

    def answer(self, name: str, begun_s: float, seconds: float, output_tokens: int = 200) -> None:
        """All of an attempt."""
        record = self.begin(name, begun_s)
        record.first_byte(begun_s + seconds)
        record.finished(begun_s + seconds)
        record.row.charged(begun_s + seconds, 4000, Usage(1000, 100, 0, output_tokens), 0.01, 2.0)

    def choice(self, now: float) -> str:
        """Who has the lowest expected time. (The choice itself may be a probe.)"""
        scored = [one for one in explain(self.pool, facts(now=now)).candidates if one.score is not None]
        return min(scored, key=lambda one: one.score).deployment.provider.name

    def row(self, name: str):
        return self.catalog.deployments[f"{name}/m"].row("chat", True)


def machine(workers: int) -> list[Worker]:
    """The supervisor first."""
    memory = memoryview(bytearray(memory_bytes(workers)))
    return [Worker(memory, workers, own) for own in (None, *range(workers))]


def step(workers: Iterable[Worker], now: float) -> None:
    """As the timers would: each says what it has before any has heard of all."""
    for _ in range(2):
        for worker in workers:
            worker.knowledge.step(now)


def test_what_is_merged_is_what_one_process_would_know_from_the_same_samples():
    everyone = machine(3)
    alone = catalog()
    rng, now = Random(1), 100.0
    for _ in range(600):
        now += rng.expovariate(5.0)
        worker, name = everyone[1 + rng.randrange(3)], rng.choice("ab")
        seconds, tokens = rng.lognormvariate(-1.0, 0.5), rng.randrange(50, 500)
        worker.answer(name, now - seconds, seconds, tokens)
        record = Record(alone.deployments[f"{name}/m"], "chat", True, now - seconds)
        record.first_byte(now)
        record.finished(now)
        record.row.charged(now, 4000, Usage(1000, 100, 0, tokens), 0.01, 2.0)
        step(everyone, now)
    expected = {name: dump(alone.deployments[f"{name}/m"].row("chat", True)) for name in "ab"}
    for worker in everyone:
        for name in "ab":
            found = dump(worker.row(name))
            assert found["charges"].pop("ratios") == pytest.approx(expected[name]["charges"]["ratios"])
            for part in ("speed", "charges", "output_s_per_token"):
                known = {key: value for key, value in expected[name][part].items() if key != "ratios"}
                assert found[part] == pytest.approx(known, rel=1e-9), part
            assert found["finished"] == expected[name]["finished"]
            assert found["success"] == pytest.approx(expected[name]["success"], rel=1e-9)
            assert found["own"] == pytest.approx(expected[name]["own"])


@pytest.fixture
def taught() -> list[Worker]:
    """Two workers, which know that a takes 0.3 s and b 0.5 s, and the supervisor first."""
    everyone = machine(2)
    for number in range(60):
        for name, seconds in (("a", 0.3), ("b", 0.5)):
            everyone[1].answer(name, 100.0 + number, seconds)
    step(everyone, 161.0)
    return everyone


def test_a_slow_down_seen_by_one_moves_the_others(taught):
    _, one, two = everyone = taught
    assert two.choice(161.0) == "a"
    for number in range(4):
        one.answer("a", 162.0 + number * 0.01, 3.0)
    assert (one.choice(165.04), two.choice(165.04)) == ("b", "a")  # two has not heard yet
    step(everyone, 165.04 + STEP_S)
    assert two.choice(165.06) == "b"
    assert two.row("a").speed.mean_s == one.row("a").speed.mean_s


def test_who_hangs_at_one_worker_is_left_by_all(taught):
    _, one, two = everyone = taught
    held = [one.begin("a", 161.0) for _ in range(3)]
    step(everyone, 164.0)
    assert two.choice(164.0) == "b"
    assert (two.row("a").elsewhere.unanswered, two.row("a").snapshot(164.0)["in_flight"]) == (3, 3)
    assert two.row("a").snapshot(164.0)["oldest_waiting_s"] == 3.0
    for record in held:
        record.left(164.1)
    step(everyone, 164.2)
    assert two.row("a").elsewhere.unanswered == 0


def test_a_member_asked_by_one_is_not_asked_to_learn_by_the_other():
    _, one, two = everyone = machine(2)
    one.begin("b", 100.0)
    step(everyone, 100.1)
    assert picks(two.pool, facts(now=100.1))["a"] == 400  # the one never asked
    assert two.row("b").used_s == 100.0
    one.row("b").probed(100.0)
    step(everyone, 100.2)
    assert two.row("b").charges.asked == 1.0


def test_failures_at_several_workers_add_up_and_eject_for_all_alike():
    supervisor, one, two = everyone = machine(2)
    for number in range(5):
        worker = (one, two)[number % 2]
        now = 100.0 + number
        worker.begin("a", now - 0.02).failed(now, "500", Random(number), what="answered 500")
        step(everyone, now)
    breakers = [worker.catalog.deployments["a/m"].breaker for worker in everyone]
    assert {breaker.state(104.0) for breaker in breakers} == {OUT}
    assert len({breaker.until_s for breaker in breakers}) == 1
    assert supervisor.row("a").last_error == "500: answered 500"
    assert supervisor.ejected == [("a/m", "deployment")]
    due_s = breakers[0].until_s
    trial = one.begin("a", due_s)
    step(everyone, due_s + STEP_S)
    assert {breaker.state(due_s + STEP_S) for breaker in breakers} == {TRIAL}
    trial.left(due_s + 0.1)
    step(everyone, due_s + 0.2)
    assert {breaker.state(due_s + 0.2) for breaker in breakers} == {DUE}
    one.answer("a", due_s + 0.3, 0.2)
    step(everyone, due_s + 1.0)
    assert {breaker.state(due_s + 1.0) for breaker in breakers} == {CLOSED}
    assert [worker.row("a").success.weight for worker in everyone] == pytest.approx([1.0] * 3, abs=0.1)


def test_a_refused_key_and_a_cool_down_are_everybodys():
    supervisor, one, two = everyone = machine(2)
    for _ in range(3):
        one.begin("a", 100.0).failed(100.0, "401", Random(1), is_refusal=True)
    one.begin("b", 100.0).failed(100.0, "429", Random(1), 7.0)
    step(everyone, 100.1)
    for worker in everyone:
        assert worker.catalog.deployments["a/m"].key.is_open
        assert worker.catalog.deployments["b/m"].breaker.cooling_until_s == 107.0
    assert supervisor.ejected == [("a/m", "key")]
    assert two.row("b").success.weight == 0.0


def test_what_a_request_provokes_is_told_with_its_mark():
    """One bad body at all workers ejects nobody, two of them do, and everybody agrees."""
    supervisor, one, two = everyone = machine(2)
    marks = [mark_of("key_1", size, 0, 0, None) for size in (10, 20)]
    for number in range(40):
        worker, now = (one, two)[number % 2], 100.0 + number
        worker.begin("a", now).failed(now, "500", Random(number), mark=marks[0])
        step(everyone, now)
    assert supervisor.ejected == []
    for worker in everyone:
        breaker = worker.catalog.deployments["a/m"].breaker
        assert (breaker.state(140.0), breaker.failures) == (CLOSED, 40)
        assert worker.row("a").read_success(140.0) > 0.9
    for number in range(2):
        (one, two)[number].begin("a", 141.0).failed(141.0, "500", Random(number), mark=marks[1])
        step(everyone, 141.0)
    assert supervisor.ejected == [("a/m", "deployment")]
    assert {worker.catalog.deployments["a/m"].breaker.state(141.0) for worker in everyone} == {OUT}


@pytest.mark.parametrize("confirms", ["code", "another member", "keys"])
def test_confirmed_refusals_are_told_too(confirms):
    supervisor, one, two = everyone = machine(2)
    for number in range(3):
        worker, now = (one, two)[number % 2], 100.0 + number
        mark = mark_of(f"key_{number if confirms == 'keys' else 0}", 10, 0, 0, None)
        now += 0.0 if confirms == "keys" else 60.0 * number
        assert supervisor.ejected == []
        record = worker.begin("a", now)
        record.failed(now, "401", Random(number), mark=mark, is_refusal=True, is_confirmed=confirms == "code")
        if confirms == "another member":
            confirm(record.deployment, record.row, mark, now, 0.5, "401")
        step(everyone, now + 0.01)
    assert supervisor.ejected == [("a/m", "key")]
    for worker in everyone:
        key = worker.catalog.deployments["a/m"].key
        assert (key.failures, key.refusals.strikes, key.is_open) == (3, 3, True)


def test_what_a_clients_own_limit_ended_is_told_as_a_wait_only():
    _, one, two = everyone = machine(2)
    for number in range(10):
        one.answer("a", 100.0 + number, 0.3)
    for number in range(20):
        one.begin("a", 120.0 + number).left(120.01 + number)
    step(everyone, 180.1)
    row = two.row("a")
    assert (row.success.mean(), row.last_error) == (1.0, None)
    assert two.catalog.deployments["a/m"].breaker.failures == 0
    one.begin("a", 180.0).failed(240.0, TIMEOUT, Random(1))  # waiting in vain is told
    step(everyone, 240.1)
    assert dump(two.row("a"))["speed"] == pytest.approx(dump(one.row("a"))["speed"])


def test_a_new_configuration_keeps_what_is_known_and_who_is_told():
    _, one, two = everyone = machine(2)
    one.answer("a", 100.0, 0.3)
    step(everyone, 101.0)
    running = one.begin("b", 101.0)
    for worker in everyone:
        worker.use(catalog(worker.catalog, '"a/n" = {}'))
    one.answer("a", 102.0, 0.3)
    step(everyone, 103.0)
    assert [worker.row("a").speed.count for worker in everyone] == [2.0] * 3
    assert two.row("b").elsewhere.in_flight == 1
    gone = parse('[providers.a]\nbase_url = "http://a/v1"\n[models."a/m"]')
    for worker in everyone:
        worker.catalog = Catalog(gone, {"a": True}, 0, worker.catalog, ("a",))
        worker.knowledge.adopt(worker.catalog.deployments)
    running.finished(104.0)
    step(everyone, 104.0)
    for worker in everyone:
        assert set(worker.catalog.deployments) == {"a/m"}
        assert worker.row("a").speed.count == 2.0
        states = [state for part in worker.knowledge.others for state in part.rows()]
        assert [state for state in states if state.elsewhere.in_flight] == []


def test_a_worker_that_starts_later_gets_what_is_known():
    supervisor, one = machine(1)
    for number in range(20):
        one.answer("a", 100.0 + number, 0.3)
    step([supervisor, one], 121.0)
    late = catalog()
    assert restore_rows(late.deployments, done(dump_rows(supervisor.catalog.deployments))) == 1
    assert dump(late.deployments["a/m"].row("chat", True)) == dump(supervisor.row("a"))
    nothing = {key: {} for key in done(dump_rows(supervisor.catalog.deployments))}
    assert restore_rows(catalog().deployments, nothing) == 0
    assert restore_rows(catalog().deployments, {1: dump(one.row("a"))}) == 0


def test_a_row_that_left_tells_nobody_and_has_its_place_again_when_it_returns():
    _, one, two = everyone = machine(2)
    part = one.knowledge.part
    assert part is not None
    running = one.begin("a", 100.0)
    step(everyone, 100.1)
    assert two.row("a").elsewhere.in_flight == 1
    places = len(list(part.rows()))
    for _ in range(3):  # as when the simulator comes or goes: the same names, and nothing known
        for worker in everyone:
            worker.use(catalog())
    step(everyone, 100.2)
    assert len(list(part.rows())) == places
    assert two.row("a").elsewhere.in_flight == 0
    running.first_byte(101.0)
    running.finished(101.0)
    step(everyone, 101.1)
    assert [worker.row("a").speed.count for worker in everyone] == [0.0] * 3
    one.answer("a", 102.0, 0.3)
    step(everyone, 103.0)
    assert [worker.row("a").speed.count for worker in everyone] == [1.0] * 3


def test_where_there_is_no_room_a_worker_goes_by_what_it_learns_itself():
    supervisor, one = machine(1)
    assert one.knowledge.part is not None
    while one.knowledge.part.add_row(1) >= 0:
        pass
    more = "".join(f'"a/x{number}" = {{}}\n' for number in range(2))
    one.use(catalog(one.catalog, more))
    row = one.catalog.deployments["a/x0"].row("chat", True)
    record = Record(one.catalog.deployments["a/x0"], "chat", True, 100.0)
    record.first_byte(100.5)
    record.finished(101.0)
    step([supervisor, one], 102.0)
    assert (row.speed.count, row.out) == (1.0, None)
    assert len(list(one.knowledge.part.rows())) == MAX_ROWS


def test_connections_elsewhere():
    supervisor, one, two = machine(2)
    for worker, count in ((one, 3), (two, 4)):
        assert worker.knowledge.part is not None
        worker.knowledge.part.connections = count
    assert [worker.knowledge.connections_elsewhere() for worker in (supervisor, one, two)] == [7, 4, 3]
