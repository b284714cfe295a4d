"""Shared knowledge of the workers: each publishes what it learns, and takes in what the others publish.

A worker learns from its own requests at once, as it would alone, and tells it
(:mod:`proxy.deployments.samples`). Every 20 ms it says what runs at it, and takes in what the others told
meanwhile, oldest first. So the rows of all workers, and of the supervisor, which only listens, agree but for
the order within such a span.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from math import nan
from typing import Any

from proxy.deployments.breaker import Breaker
from proxy.deployments.deployment import Deployment
from proxy.deployments.record import teach
from proxy.deployments.row import Row
from proxy.deployments.row_snapshot import dump, restore
from proxy.deployments.samples import GOOD, NOBODY_WAITS, Elsewhere, Sample
from proxy.deployments.shared_memory import PART_BYTES, RowState, WorkerSegment

# How often a worker takes in what others learned: the others choose by it this much later at most.
STEP_S = 0.02


# By id, as the catalog has them.
Deployments = Mapping[str, Deployment]


class _Own:
    """A row of this worker, and what of it has been told."""

    __slots__ = ("deployment", "finished", "good", "index", "quiet_s", "row")

    def __init__(self, deployment: Deployment, row: Row, index: int) -> None:
        self.deployment = deployment
        self.row = row
        self.index = index
        self.finished, self.good = row.finished_count, row.good_count
        self.quiet_s = nan  # when it was used last, if nothing ran there when it was told last


class WorkerSync:
    """One worker's side of the exchange. All times are monotonic seconds.

    :param memory: the mapping, of ``workers`` parts. :param own: this worker's part; None: it has none.
    :param on_ejected: called with what was ejected because of others' samples: ``"deployment"`` or ``"key"``.
    """

    def __init__(
        self,
        memory: memoryview,
        workers: int,
        own: int | None = None,
        on_ejected: Callable[[Deployment, str, float], None] | None = None,
    ) -> None:
        parts = [WorkerSegment(memory, index) for index in range(workers)]
        self.part = None if own is None else parts[own]
        self.others = [part for index, part in enumerate(parts) if index != own]
        self.positions = [part.written for part in self.others]
        self._on_ejected = on_ejected
        self._names: dict[int, tuple[Deployment, str, bool]] = {}
        self._prepared: dict[int, tuple[Deployment, str, bool]] = {}  # names of the next deployments
        self._prepared_for: Deployments | None = None
        self._own: dict[Row, _Own] = {}
        self._places: dict[
            int, int
        ] = {}  # of rows in this worker's part, by key: a row that returns has its own
        self._marked: list[Row] = []  # have something running elsewhere
        self._on_trial: list[Breaker] = []
        self._versions: list[int] = []  # of the parts, when they were looked at last

    def prepare(self, deployments: Deployments) -> Generator[None, None, None]:
        """Name the rows of deployments that are to be adopted, in steps: each name is a hash."""
        names: dict[int, tuple[Deployment, str, bool]] = {}
        for deployment in deployments.values():
            for endpoint in deployment.row_endpoints():
                for streamed in (True, False):
                    names[deployment.key_of(endpoint, streamed)] = deployment, endpoint, streamed
            yield
        self._prepared, self._prepared_for = names, deployments

    def adopt(self, deployments: Deployments) -> None:
        """From now on these are the deployments."""
        if self._prepared_for is not deployments:
            for _ in self.prepare(deployments):
                pass
        self._versions = []
        self._names, self._prepared, self._prepared_for = self._prepared, {}, None
        own = self._own
        self._own = {}
        for left in own.values():
            if self.part is not None:
                nothing = RowState(left.row.key, NOBODY_WAITS, left.row.used_s, left.row.heard_s, 0)
                self.part.set_row(left.index, nothing)
            left.quiet_s = nan  # what stays is told anew
        for deployment in deployments.values():
            deployment.on_row = self._join
            for (endpoint, streamed), row in deployment.rows().items():
                if row in own:
                    own[row].deployment = deployment
                    self._own[row] = own[row]
                else:
                    self._join(deployment, endpoint, streamed, row)
        for row in own.keys() - self._own.keys():  # what still runs there ends unpublished
            row.out = None

    def _join(self, deployment: Deployment, endpoint: str, streamed: bool, row: Row) -> None:
        row.key = deployment.key_of(endpoint, streamed)
        if self.part is None:
            return
        index = self._places.get(row.key, -1)
        if index < 0:
            index = self._places[row.key] = self.part.add_row(row.key)
        if index >= 0:  # else it goes by what it learns itself
            row.out = self.part
            self._own[row] = _Own(deployment, row, index)

    def step(self, now: float) -> None:
        """Say what runs here, and take in what the others told."""
        if self.part is not None:
            self._publish_rows(self.part, now)
        samples: list[Sample] = []
        for index, part in enumerate(self.others):
            found, self.positions[index] = part.samples(self.positions[index])
            samples += found
        samples.sort(key=_when)
        for sample in samples:
            name = self._names.get(sample.key)
            if name is not None:
                self._teach(name, sample)
        self._look_around()

    def connections_elsewhere(self) -> int:
        """Clients' connections at the other workers."""
        return sum(part.connections for part in self.others)

    def share_buffered(self, own_bytes: int) -> int:
        """Say what is held here; returns what is held at the other workers, in bytes."""
        if self.part is not None:
            self.part.buffered_bytes = own_bytes
        return sum(part.buffered_bytes for part in self.others)

    def _teach(self, name: tuple[Deployment, str, bool], sample: Sample) -> None:
        deployment, endpoint, streamed = name
        ejected = teach(deployment, deployment.row(endpoint, streamed), sample)
        if ejected is not None and self._on_ejected is not None:
            self._on_ejected(deployment, ejected, sample.at)

    def _publish_rows(self, part: WorkerSegment, now: float) -> None:
        for own in self._own.values():
            row, deployment = own.row, own.deployment
            finished = row.finished_count - own.finished
            if not row.in_flight and not finished and row.used_s == own.quiet_s:
                continue
            own.quiet_s = nan if row.in_flight else row.used_s
            oldest_s, unanswered = row.unanswered(now)
            trials = int(deployment.breaker.on_trial) + 2 * int(deployment.key.on_trial)
            here = Elsewhere(row.in_flight, row.awaiting, unanswered, oldest_s)
            part.set_row(own.index, RowState(row.key, here, row.used_s, row.heard_s, trials))
            if finished:
                good = row.good_count - own.good
                own.finished, own.good = row.finished_count, row.good_count
                part.publish(GOOD, row.key, now, float(good), float(finished), row.good_begun_s)

    def _look_around(self) -> None:
        """Read what runs at other workers, row by row."""
        versions = [part.version for part in self.others]
        if versions == self._versions:
            return
        self._versions = versions
        for row in self._marked:
            row.elsewhere = NOBODY_WAITS
        for breaker in self._on_trial:
            breaker.trial_elsewhere = False
        self._marked, self._on_trial = [], []
        for part in self.others:
            for state in part.rows():
                name = self._names.get(state.key)
                if name is not None:
                    self._mark(name, state)

    def _mark(self, name: tuple[Deployment, str, bool], state: RowState) -> None:
        deployment, endpoint, streamed = name
        row = deployment.row(endpoint, streamed)
        row.used_s = max(row.used_s, state.used_s)
        row.heard_s = max(row.heard_s, state.heard_s)
        here = state.elsewhere
        if here.in_flight:
            before = row.elsewhere
            row.elsewhere = Elsewhere(
                before.in_flight + here.in_flight,
                before.awaiting + here.awaiting,
                before.unanswered + here.unanswered,
                min(before.oldest_s, here.oldest_s),
            )
            self._marked.append(row)
        for flag, breaker in ((1, deployment.breaker), (2, deployment.key)):
            if state.trials & flag:
                breaker.trial_elsewhere = True
                self._on_trial.append(breaker)


def memory_bytes(workers: int) -> int:
    """The size of the mapping."""
    return workers * PART_BYTES


def dump_rows(
    deployments: Deployments, shift_s: float = 0.0
) -> Generator[None, None, dict[int, dict[str, Any]]]:
    """Collect what all rows of the deployments have learned, by key; in steps."""
    found: dict[int, dict[str, Any]] = {}
    for deployment in deployments.values():
        for (endpoint, streamed), row in deployment.rows().items():
            if row.speed.count or row.charges.requests or row.success.weight:
                found[deployment.key_of(endpoint, streamed)] = dump(row, shift_s)
        yield
    return found


def restore_rows(deployments: Deployments, learned: dict[int, dict[str, Any]], shift_s: float = 0.0) -> int:
    """Put what was learned back into their rows; how many.

    What belongs to none of them, or was written by another version, is left out.
    """
    count = 0
    for deployment in deployments.values():
        for endpoint in deployment.row_endpoints():
            for streamed in (True, False):
                state = learned.get(deployment.key_of(endpoint, streamed))
                if state is None:
                    continue
                try:
                    restore(deployment.row(endpoint, streamed), state, shift_s)
                except (AttributeError, KeyError, TypeError, ValueError):
                    continue
                count += 1
    return count


def _when(sample: Sample) -> float:
    return sample.at
