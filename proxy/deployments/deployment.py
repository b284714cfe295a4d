"""A deployment: one model at one provider. What a request is finally sent to, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson

from proxy.config.settings import SERVED_WITH, EjectConfig, ModelConfig, ProviderConfig, served_endpoints
from proxy.deployments.breaker import CLOSED, COOLING, DUE, EASING, STATES, TRIAL, Breaker
from proxy.deployments.row import Row
from proxy.deployments.strikes import Recent
from proxy.deployments.window import ContextWindow
from proxy.usage.pricing import prices_of

# Strikes by refusals, without a success between them, that eject: of the operator's key by a 401, of a model,
# its address or the account by another 4xx or a redirection.
REFUSALS: Final = 3


class Failed(NamedTuple):
    """A failed attempt, as the breakers need to know it.

    ``outcome``: ``connect``, ``timeout``, ``reset``, ``error`` or a status; ``what``: for people, in a few
    words; ``begun_s``: when it began; ``is_silent``: the member answered nothing that was asked since;
    ``retry_after_s``: seconds the provider asked for; ``roll``: of the dice, from 0 to 1; ``mark``: of the
    request, where it may have provoked the failure, else 0; ``is_refusal``: the operator's key, account,
    model or address is refused; ``is_confirmed``: of a refusal, that the request can't have provoked it;
    ``is_gone``: that it says so for good.
    """

    outcome: str
    what: str
    begun_s: float
    is_silent: bool
    retry_after_s: float | None
    roll: float
    mark: int = 0
    is_confirmed: bool = False
    is_refusal: bool = False
    is_gone: bool = False

    @property
    def error(self) -> str:
        """For people."""
        return f"{self.outcome}: {self.what}" if self.what else self.outcome

    @property
    def counts(self) -> bool:
        """False if the provider said for how long it is busy."""
        return self.retry_after_s is None or self.outcome not in ("429", "503")


def key_breaker(eject: EjectConfig) -> Breaker:
    """The breaker that all deployments of a provider share: it opens when the provider refuses the key.

    Only a 401 counts. Other refusals are about one model, or one account's right to it.
    """
    return Breaker(REFUSALS, eject.base_s, eject.max_s)


class Deployment:
    """One model at one provider.

    :param usable: its provider has credentials.
    :param half_life_s: pace of its rows, in seconds.
    :param can_fail_over: attempts here may be followed by one elsewhere.
    :param key: shared by the deployments of a provider; see :func:`key_breaker`.
    """

    __slots__ = (
        "_half_life_s",
        "_recent",
        "_rows",
        "breaker",
        "can_fail_over",
        "capabilities",
        "eject",
        "endpoints",
        "id",
        "key",
        "labels",
        "model",
        "on_row",
        "passes_credentials",
        "prices",
        "provider",
        "short",
        "upstream_literal",
        "usable",
        "weight",
        "window",
    )  # fmt: skip

    def __init__(
        self,
        model: ModelConfig,
        provider: ProviderConfig,
        *,
        usable: bool,
        half_life_s: float = 30.0,
        eject: EjectConfig = EjectConfig(),  # noqa: B008  # frozen
        can_fail_over: bool = True,
        key: Breaker | None = None,
    ) -> None:
        self.id = model.id
        # The id's part after the provider: two deployments with the same one are the same model.
        self.short = model.id.removeprefix(model.provider + "/")
        self.labels = provider.name, model.id  # in metrics
        self.model = model
        self.provider = provider
        self.upstream_literal: bytes = orjson.dumps(model.upstream)
        self.prices = prices_of(model)
        self.window = ContextWindow(model.context_window)
        self.capabilities = model.capabilities
        self.endpoints = served_endpoints(model, provider)
        self.weight = model.weight
        self.passes_credentials = provider.auth == "passthrough"
        self.usable = usable
        self.eject = eject
        self.can_fail_over = can_fail_over
        self.breaker = Breaker(eject.consecutive_failures, eject.base_s, eject.max_s)
        self.key = key or key_breaker(eject)
        self.on_row: Callable[[Deployment, str, bool, Row], None] | None = None  # hears of each row made
        self._half_life_s = half_life_s
        self._rows: dict[tuple[str, bool], Row] = {}
        self._recent = Recent()

    @property
    def why_unusable(self) -> str:
        """The reason why it is left out while it is not ``usable``, and the way out."""
        return f"provider {self.provider.name} {self.provider.no_key}; it is left out"

    def row(self, endpoint: str, streamed: bool) -> Row:
        """The live row of an endpoint, made at its first use and kept."""
        row = self._rows.get((endpoint, streamed))
        if row is None:
            row = self._rows[endpoint, streamed] = Row(self._half_life_s)
            if self.on_row is not None:
                self.on_row(self, endpoint, streamed, row)
        return row

    def row_endpoints(self) -> list[str]:
        """The endpoints that it has rows for, or may have."""
        also = [endpoint for endpoint, served_with in SERVED_WITH.items() if served_with in self.endpoints]
        return [*sorted(self.endpoints), *also]

    def key_of(self, endpoint: str, streamed: bool) -> int:
        """Return the name of a row in shared memory and on disk: 64 bits of what must stay the same for its
        figures to hold."""
        name = repr((self.id, _address(self), endpoint, streamed))
        return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")

    def rows(self) -> dict[tuple[str, bool], Row]:
        """The rows that exist, by (endpoint, streamed): for tables of people."""
        return dict(self._rows)

    def succeeded(self, row: Row, begun_s: float, now: float) -> None:
        """An attempt that began at ``begun_s`` was answered well; the breakers may have to know."""
        was_out = self.breaker.ejections
        self.breaker.succeeded(begun_s, now)
        self.key.succeeded(begun_s, now)
        if was_out and not self.breaker.ejections:
            row.forget_failures()

    def failed(self, row: Row, now: float, failure: Failed) -> str | None:
        """Record a failed attempt. Returns what is ejected, ``"deployment"``, ``"key"`` or nothing. The row's
        success ratio counts it too, if it is the deployment's failure."""
        if not failure.counts:
            assert failure.retry_after_s is not None
            self.breaker.cool_down(failure.retry_after_s, now, failure.roll)
            return None
        if failure.outcome == "429":
            self.breaker.ease(failure.begun_s, now)
            return None
        if failure.is_refusal:
            limit = 1 if failure.is_gone else REFUSALS
            return self._refused(
                row, now, failure.mark, failure.roll, failure.outcome, failure.error, limit,
                is_confirmed=failure.is_confirmed, is_new=True,
            )  # fmt: skip
        if self._recent.counts(failure.mark, now):
            row.count_failure(now)
        mostly = failure.is_silent or row.mostly_fails(now, self.eject.error_rate)
        took_s = now - failure.begun_s if self.can_fail_over else None
        is_out = self.breaker.failed(
            failure.error, now, failure.roll, mostly=mostly, took_s=took_s, mark=failure.mark,
            per_s=row.success.weight_at(now) / row.success.tau_s,
        )  # fmt: skip
        return "deployment" if is_out else None

    def confirmed(self, row: Row, now: float, mark: int, roll: float, outcome: str) -> str | None:
        """Record that a request refused here was answered elsewhere, so the refusal was not its fault.

        :returns: as :meth:`failed`.
        """
        error = f"{outcome}: answered {outcome}, and another served the same request"
        return self._refused(row, now, mark, roll, outcome, error, REFUSALS, is_confirmed=True, is_new=False)

    def _refused(
        self, row: Row, now: float, mark: int, roll: float, outcome: str, error: str, limit: int, *,
        is_confirmed: bool, is_new: bool,
    ) -> str | None:  # fmt: skip
        is_key = outcome == "401"
        breaker = self.key if is_key else self.breaker
        is_strike, is_out = breaker.refused(
            "the provider refuses the key" if is_key else error, now, roll, mark,
            is_confirmed=is_confirmed, limit=limit, is_new=is_new,
        )  # fmt: skip
        if is_strike:
            row.count_failure(now)
        if not is_out:
            return None
        return "key" if is_key else "deployment"

    def can_serve(self, endpoint: str) -> bool:
        """Return whether requests of this endpoint may go here (credentials aside)."""
        return SERVED_WITH.get(endpoint, endpoint) in self.endpoints

    def state(self, now: float) -> int:
        """The state of its breaker, or of its provider's key where that is the worse obstacle."""
        if not self.key.is_open:
            return self.breaker.state(now)
        own, key = self.breaker.state(now), self.key.state(now)
        if CLOSED in (own, key):
            return own or key
        if TRIAL in (own, key) and DUE in (own, key):
            return TRIAL  # one trial is about both
        return own if self.breaker.free_at(now) >= self.key.free_at(now) else key

    def free_at(self, now: float) -> float:
        """Return the time from which it may be asked, ``now`` if it may. Monotonic seconds."""
        return max(self.breaker.free_at(now), self.key.free_at(now))

    def is_free(self, now: float) -> bool:
        """Return whether it is among those that requests go to: it has credentials, and is not out."""
        return self.usable and self.state(now) in (CLOSED, EASING)

    def is_failing(self, now: float) -> bool:
        """Return whether it is out, or has answered nothing well for as long as would eject it if different
        requests had failed."""
        return self.breaker.failures >= self.breaker.limit or not self.is_free(now)

    def health(self, now: float) -> dict[str, Any]:
        """For tables of people; ``ejected_until_s`` is seconds from now."""
        if not self.usable:
            return {"state": "no credentials", "ejected_until_s": None, "reason": self.why_unusable}
        state = self.state(now)
        reason = None
        if state == COOLING:
            reason = "the provider sent Retry-After"
        elif state == EASING:
            reason = "Retry-After has just passed: others go first"
            if now < self.breaker.limited_at_s + self.breaker.eases_s:
                reason = "the provider sent 429 without Retry-After: others go first"
        elif state != CLOSED:
            reason = self.key.reason if self.key.state(now) == state else self.breaker.reason
        left_s = self.free_at(now) - now
        return {
            "state": STATES[state],
            "ejected_until_s": None if state in (CLOSED, EASING, TRIAL) else left_s,
            "reason": reason,
        }

    def adopt(self, old: Deployment) -> None:
        """Take over what is known of the same deployment in the catalog before, if it still is the same."""
        if _address(old) != _address(self):
            return
        # The same objects: a request that still runs on the old deployment may make a row yet, or fail.
        self._rows = old._rows
        for row in self._rows.values():
            row.retune(self._half_life_s)
        old.breaker.retune(self.breaker.limit, self.breaker.base_s, self.breaker.max_s)
        self.breaker = old.breaker
        self._recent = old._recent

    def __repr__(self) -> str:
        return f"<Deployment {self.id}{'' if self.usable else ' without credentials'}>"


def _address(deployment: Deployment) -> tuple[str, str, int, str, str]:
    """Return what must stay the same for old measurements to hold."""
    provider = deployment.provider
    return provider.scheme, provider.host, provider.port, provider.base_path, deployment.model.upstream
