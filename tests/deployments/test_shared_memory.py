"""The shared memory: what is written is read, and what is half written is not."""

from __future__ import annotations

import pytest

from proxy.deployments import shared_memory
from proxy.deployments.samples import TIME, Elsewhere
from proxy.deployments.shared_memory import MAX_ROWS, MAX_SAMPLES, PART_BYTES, RowState, WorkerSegment


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(2 * PART_BYTES))


def tell(part: WorkerSegment, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        part.publish(TIME, 7, float(number), 0.25, 3)


def test_lessons_in_their_order_each_once(memory):
    writer, reader = WorkerSegment(memory, 1), WorkerSegment(memory, 1)
    assert reader.samples(0) == ([], 0)
    tell(writer, 3)
    found, at = reader.samples(0)
    assert [sample.at for sample in found] == [0.0, 1.0, 2.0]
    assert {(sample.kind, sample.key, sample.numbers[:2]) for sample in found} == {(TIME, 7, (0.25, 3.0))}
    tell(writer, 2, 3)
    found, at = reader.samples(at)
    assert ([sample.at for sample in found], at) == ([3.0, 4.0], 5)
    assert WorkerSegment(memory, 0).samples(0) == ([], 0)


def test_who_reads_too_rarely_misses_the_oldest(memory):
    part = WorkerSegment(memory, 0)
    tell(part, MAX_SAMPLES + 10)
    found, at = part.samples(0)
    assert [sample.at for sample in found] == [float(number) for number in range(10, MAX_SAMPLES + 10)]
    assert at == part.written == MAX_SAMPLES + 10


def test_a_record_that_is_not_all_there_waits(memory):
    part = WorkerSegment(memory, 0)
    tell(part, 3)
    place = shared_memory._HEAD_BYTES + shared_memory._ROWS_BYTES + shared_memory._RECORD_BYTES + 40
    before = memory[place]
    memory[place] = before ^ 1
    found, at = part.samples(0)
    assert ([sample.at for sample in found], at) == ([0.0], 1)
    memory[place] = before
    assert [sample.at for sample in part.samples(at)[0]] == [1.0, 2.0]


def test_a_record_that_stays_broken_is_passed_over_in_the_end(memory):
    part = WorkerSegment(memory, 0)
    tell(part, 1)
    memory[shared_memory._HEAD_BYTES + shared_memory._ROWS_BYTES + 40] ^= 1
    assert part.samples(0) == ([], 0)
    tell(part, MAX_SAMPLES - 1, 1)
    assert part.samples(0)[1] == MAX_SAMPLES


def test_a_record_overwritten_by_a_later_one_is_left_out(memory):
    part = WorkerSegment(memory, 0)
    tell(part, MAX_SAMPLES + 1)
    part._whole[shared_memory._WRITTEN] = MAX_SAMPLES  # as if read before the last one counted
    found, _ = part.samples(0)
    assert found[0].at == 1.0


def test_rows_say_what_runs(memory):
    part = WorkerSegment(memory, 1)
    first, second = part.add_row(2**64 - 1), part.add_row(5)
    states = {state.key: state for state in part.rows()}
    assert states[5].elsewhere == (0, 0, 0, float("inf"))
    assert states[5].used_s == states[5].heard_s == float("-inf")
    part.set_row(second, RowState(5, Elsewhere(3, 2, 1, 1.5), 2.5, 3.5, 3))
    part.connections = 9
    other = WorkerSegment(memory, 1)
    states = {state.key: state for state in other.rows()}
    assert other.connections == 9
    assert (first, second) == (0, 1)
    assert states[5].elsewhere == (3, 2, 1, 1.5)
    assert (states[5].used_s, states[5].heard_s, states[5].trials) == (2.5, 3.5, 3)
    assert states[2**64 - 1].elsewhere == (0, 0, 0, float("inf"))
    assert list(WorkerSegment(memory, 0).rows()) == []


def test_there_is_room_for_so_many_rows_and_no_more(memory):
    part = WorkerSegment(memory, 0)
    assert [part.add_row(key) for key in range(MAX_ROWS)] == list(range(MAX_ROWS))
    assert part.add_row(0) == -1
    assert len(list(part.rows())) == MAX_ROWS
    tell(part, 1)
    assert [sample.key for sample in part.samples(0)[0]] == [7]  # the ring lies behind them
    assert list(WorkerSegment(memory, 1).rows()) == []


def test_what_a_dead_worker_had_is_cleared_but_not_what_it_told(memory):
    part = WorkerSegment(memory, 0)
    part.set_row(part.add_row(5), RowState(5, Elsewhere(3, 2, 1, 1.5), 2.5, 3.5, 1))
    part.connections = 9
    tell(part, 2)
    part.clear()
    assert (list(part.rows()), part.connections, part.written) == ([], 0, 2)
    part.add_row(6)
    assert [(state.key, state.elsewhere) for state in part.rows()] == [(6, (0, 0, 0, float("inf")))]
    assert [sample.at for sample in part.samples(0)[0]] == [0.0, 1.0]
