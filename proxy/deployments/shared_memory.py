"""The memory that workers share: for each a part that only it writes, and all read.

    head            16 numbers of 8 bytes: samples written, rows known, connections, version,
                    bytes held
    rows            MAX_ROWS of 8 numbers: a row's key, and what runs there at this worker
    samples         a ring of MAX_SAMPLES records: sequence number, checksum, sample

No lock is taken. Numbers are written whole, being 8 bytes at a multiple of 8. A sample counts once the number
of those written says so, and only if its own number and its checksum are right: a record that was overwritten
while it was read, one that a worker was killed in, and one whose parts have not reached this processor yet
all look alike, and are not taken in.

All of it is lost with the processes, so the layout may change with every version.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from zlib import crc32

from proxy.deployments.samples import SAMPLE_BYTES, Elsewhere, Sample, pack, unpack

# 20 models at their usual endpoints are about 100 rows.
MAX_ROWS = 2048
# Each row publishes up to 400 samples a second, and all workers read at least every 100 ms.
MAX_SAMPLES = 4096
_HEAD_NUMBERS, _ROW_NUMBERS = 16, 8
_HEAD_BYTES, _ROWS_BYTES = 8 * _HEAD_NUMBERS, 8 * _ROW_NUMBERS * MAX_ROWS
_MARK = Struct("<QI4x")
_RECORD_BYTES = _MARK.size + SAMPLE_BYTES
PART_BYTES = -(-(_HEAD_BYTES + _ROWS_BYTES + _RECORD_BYTES * MAX_SAMPLES) // 4096) * 4096
# Numbers of the head.
_WRITTEN, _ROWS, _CONNECTIONS, _VERSION, _BUFFERED = range(5)
# Numbers of a row.
_KEY, _IN_FLIGHT, _AWAITING, _UNANSWERED, _OLDEST, _USED, _HEARD, _TRIALS = range(8)
_NEVER = float("-inf")


class RowState:
    """Requests of one row at one worker. ``trials``: 1 for the deployment's, 2 for its provider's key's."""

    __slots__ = ("elsewhere", "heard_s", "key", "trials", "used_s")

    def __init__(self, key: int, elsewhere: Elsewhere, used_s: float, heard_s: float, trials: int) -> None:
        self.key = key
        self.elsewhere = elsewhere
        self.used_s = used_s
        self.heard_s = heard_s
        self.trials = trials


class WorkerSegment:
    """One worker's part. It is the :class:`proxy.deployments.samples.SampleSink` to its worker, and to nobody
    else.

    :param memory: all of the mapping, writable.
    :param index: which part, from 0.
    """

    def __init__(self, memory: memoryview, index: int) -> None:
        begin = index * PART_BYTES
        part = memory[begin : begin + PART_BYTES]
        numbers = part[: _HEAD_BYTES + _ROWS_BYTES]
        self._whole = numbers.cast("Q")
        self._reals = numbers.cast("d")
        self._ring = part[_HEAD_BYTES + _ROWS_BYTES :]

    def clear(self) -> None:
        """For a new worker: nothing runs there. What was told before stays told."""
        whole = self._whole
        whole[_ROWS] = whole[_CONNECTIONS] = 0
        whole[_VERSION] += 1
        whole[_HEAD_NUMBERS:] = memoryview(bytes(_ROWS_BYTES)).cast("Q")

    # ------------------------------------------------------------------ what its worker writes

    def publish(self, kind: int, key: int, at: float, *numbers: float, text: str = "") -> None:
        """Write a sample; the oldest is overwritten where the ring is full."""
        number = self._whole[_WRITTEN]
        sample = pack(kind, key, at, numbers, text)
        place = number % MAX_SAMPLES * _RECORD_BYTES
        self._ring[place : place + _RECORD_BYTES] = _MARK.pack(number, crc32(sample, number)) + sample
        self._whole[_WRITTEN] = number + 1

    def add_row(self, key: int) -> int:
        """A place for a row; -1 where all are taken."""
        index = self._whole[_ROWS]
        if index == MAX_ROWS:
            return -1
        begin = _HEAD_NUMBERS + _ROW_NUMBERS * index
        self._whole[begin + _KEY] = key
        self._reals[begin + _OLDEST] = float("inf")
        self._reals[begin + _USED] = self._reals[begin + _HEARD] = _NEVER
        self._whole[_ROWS] = index + 1
        return int(index)

    def set_row(self, index: int, state: RowState) -> None:
        """Publish what runs at this worker now."""
        begin = _HEAD_NUMBERS + _ROW_NUMBERS * index
        whole, real, here = self._whole, self._reals, state.elsewhere
        whole[begin + _IN_FLIGHT] = here.in_flight
        whole[begin + _AWAITING] = here.awaiting
        whole[begin + _UNANSWERED] = here.unanswered
        real[begin + _OLDEST] = here.oldest_s
        real[begin + _USED] = state.used_s
        real[begin + _HEARD] = state.heard_s
        whole[begin + _TRIALS] = state.trials
        whole[_VERSION] += 1

    @property
    def connections(self) -> int:
        """Open connections of clients."""
        return int(self._whole[_CONNECTIONS])

    @connections.setter
    def connections(self, count: int) -> None:
        self._whole[_CONNECTIONS] = count

    @property
    def buffered_bytes(self) -> int:
        """What is held there of requests and responses."""
        return int(self._whole[_BUFFERED])

    @buffered_bytes.setter
    def buffered_bytes(self, size: int) -> None:
        self._whole[_BUFFERED] = size

    # ------------------------------------------------------------------ what the others read

    @property
    def written(self) -> int:
        """Samples told so far."""
        return int(self._whole[_WRITTEN])

    @property
    def version(self) -> int:
        """Changes with what any row says."""
        return int(self._whole[_VERSION])

    def samples(self, since: int) -> tuple[list[Sample], int]:
        """The samples from number ``since`` on, and the number to go on with.

        Those that were overwritten before they were read are left out.
        """
        written = self.written
        at = max(since, written - MAX_SAMPLES)
        found = []
        while at < written:
            place = at % MAX_SAMPLES * _RECORD_BYTES
            record = bytes(self._ring[place : place + _RECORD_BYTES])
            number, checksum = _MARK.unpack_from(record)
            sample = record[_MARK.size :]
            if number == at and checksum == crc32(sample, at):
                found.append(unpack(sample))
            elif number <= at and written - at < MAX_SAMPLES:
                break  # it is not all here yet: next time
            at += 1
        return found, at

    def rows(self) -> Iterable[RowState]:
        """Read what runs at that worker, by row."""
        whole, real = self._whole, self._reals
        for index in range(min(whole[_ROWS], MAX_ROWS)):
            begin = _HEAD_NUMBERS + _ROW_NUMBERS * index
            here = Elsewhere(
                whole[begin + _IN_FLIGHT], whole[begin + _AWAITING], whole[begin + _UNANSWERED],
                real[begin + _OLDEST],
            )  # fmt: skip
            yield RowState(
                whole[begin + _KEY], here, real[begin + _USED], real[begin + _HEARD], whole[begin + _TRIALS]
            )
