"""Alerts for operators: keys and groups near a limit of a day or a month, ejections, refused credentials.

A :class:`Watch` checks the tables at an interval and returns what is new. It compares the present state with
what was reported, and not single events: a change that comes and goes between two checks is not reported
wrongly. A cause is reported at most once an hour; what was held back is reported after the hour if it is
still so. The latest report of something is never wrong for longer than that.

What holds already at the first check is reported once: the operator who sets a webhook needs to know it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from typing import Any, NamedTuple

from proxy.access.group import Group
from proxy.access.key import NUSD, Key
from proxy.access.permits import Month
from proxy.deployments.deployment import Deployment
from proxy.routing.catalog import Catalog
from proxy.usage.calendar import day_of, month_of

KEY_LIMIT = "key_limit"
GROUP_LIMIT = "group_limit"
EJECTED = "deployment_ejected"
BACK = "deployment_back"
REFUSED = "provider_key_refused"

# A cause is reported at most once in this time.
QUIET_S = 3600.0
# Samples of other workers may be this late; an ejection that is seen twice for that reason is reported once.
_SEEN_LATE_S = 1.0
# Percent of a limit of a day or a month, the higher first.
_THRESHOLDS = (100, 80)


class Alert(NamedTuple):
    """One alert. ``text``: a sentence for people; ``fields``: the same for programs."""

    event: str
    text: str
    fields: Mapping[str, Any]


class _Seen:
    """The state of a deployment as it was seen and reported last. Monotonic seconds."""

    __slots__ = ("ejected_at_s", "is_reported_out")

    def __init__(self, ejected_at_s: float) -> None:
        self.ejected_at_s = ejected_at_s
        self.is_reported_out = False


class Watch:
    """Finds the alerts for one webhook, from the moment it is set."""

    def __init__(self) -> None:
        self._reported_at: dict[tuple[str, ...], float] = {}  # causes of the last hour
        self._seen: dict[str, _Seen] = {}  # by the deployment's id
        self._failures: dict[str, int] = {}  # refusals in a row, by provider
        self._checked_at = inf
        # By key or group, and limit: the window, and the threshold that was reported in it.
        self._reached: dict[tuple[str, str, str], tuple[int, int]] = {}

    def steps(
        self, catalog: Catalog, used: Iterable[tuple[Key | Group, Month]], now: float, unix_s: float
    ) -> Generator[None, None, list[Alert]]:
        """The alerts of now, found in steps.

        :param used: keys and groups with a limit of a day or a month, all or some, and what they have used.
        :param now: monotonic seconds. :param unix_s: the same moment for people.
        """
        self._reported_at = {cause: at for cause, at in self._reported_at.items() if now - at < QUIET_S}
        found = yield from self._refusals(catalog, now)
        self._seen = {id: seen for id, seen in self._seen.items() if id in catalog.deployments}
        for deployment in catalog.deployments.values():
            found += self._turns(deployment, now, unix_s)
            yield
        for holder, month in used:
            found += self._passed(holder, month, now, unix_s)
        return found

    def _may_report(self, now: float, *cause: str) -> bool:
        """Claim the right to report a cause: True once an hour."""
        if cause in self._reported_at:
            return False
        self._reported_at[cause] = now
        return True

    def _turns(self, deployment: Deployment, now: float, unix_s: float) -> Iterator[Alert]:
        breaker, id = deployment.breaker, deployment.id
        seen = self._seen.get(id)
        if seen is None:
            seen = self._seen[id] = _Seen(breaker.ejected_at_s)
        is_out = breaker.ejections > 0
        was_out = is_out or breaker.ejected_at_s > seen.ejected_at_s
        seen.ejected_at_s = breaker.ejected_at_s
        if was_out and not seen.is_reported_out and self._may_report(now, EJECTED, id):
            seen.is_reported_out = True
            yield _ejected(deployment, breaker.until_s - now + unix_s)
        if seen.is_reported_out and not is_out and self._may_report(now, BACK, id):
            seen.is_reported_out = False
            fields = {"model": id, "provider": deployment.provider.name}
            yield Alert(BACK, f"{id} is back: it is no longer ejected.", fields)

    def _refusals(self, catalog: Catalog, now: float) -> Generator[None, None, list[Alert]]:
        """The first refusal counts. A good answer right after it takes it out of the breaker's count, so the
        rows' latest errors are looked at too."""
        since, self._checked_at = self._checked_at - _SEEN_LATE_S, now
        refused = set()
        for deployment in catalog.deployments.values():
            for row in deployment.rows().values():
                if row.last_error_s > since and (row.last_error or "").startswith("401"):
                    refused.add(deployment.provider.name)
            yield
        before = self._failures
        self._failures = {name: breaker.failures for name, breaker in catalog.keys.items()}
        refused |= {name for name, count in self._failures.items() if count > before.get(name, 0)}
        found = []
        for name in sorted(refused):
            if self._may_report(now, REFUSED, name):
                text = f"Provider {name} refuses the gateway's key (401): it may have expired or be revoked."
                found.append(Alert(REFUSED, text, {"provider": name, "reason": "it answered 401"}))
        return found

    def _passed(self, holder: Key | Group, month: Month, now: float, unix_s: float) -> Iterator[Alert]:
        event, id = (GROUP_LIMIT, holder.name) if isinstance(holder, Group) else (KEY_LIMIT, holder.id)
        is_over = isinstance(holder, Key) and not holder.is_in_use(unix_s)
        windows = {"daily": day_of(unix_s), "monthly": month_of(unix_s)[0]}
        for name, used, limit in (
            ("monthly_tokens", month.tokens, holder.monthly_tokens),
            ("monthly_usd", month.nusd, holder.monthly_nusd),
            ("daily_tokens", month.day_tokens, holder.daily_tokens),
            ("daily_usd", month.day_nusd, holder.daily_nusd),
        ):
            window, reached = windows[name.partition("_")[0]], 0
            seen, told = self._reached.get((event, id, name), (window, 0))
            told = told if seen == window else 0
            if limit is not None and not is_over:
                reached = next((percent for percent in _THRESHOLDS if 100 * used >= percent * limit), 0)
            if reached < told:  # another limit
                self._reached[event, id, name] = window, reached
            elif reached > told and self._may_report(now, event, id, name, str(window), str(reached)):
                self._reached[event, id, name] = window, reached
                assert limit is not None
                yield _limit(event, holder, name, reached, used, limit, unix_s)


def _ejected(deployment: Deployment, until_unix_s: float) -> Alert:
    id, reason = deployment.id, _reason(deployment)
    until = moment(until_unix_s)
    text = f"{id} is ejected until {until} at least: {reason}."
    fields = {"model": id, "provider": deployment.provider.name, "reason": reason, "until": until}
    return Alert(EJECTED, text, fields)


def _reason(deployment: Deployment) -> str:
    """The reason of an ejection. A breaker that has closed again has none, so the latest error stands in."""
    if deployment.breaker.reason is not None:
        return deployment.breaker.reason
    rows = [row for row in deployment.rows().values() if row.last_error is not None]
    latest = max(rows, key=lambda row: row.last_error_s, default=None)
    return "it failed" if latest is None or latest.last_error is None else latest.last_error


def _limit(
    event: str, holder: Key | Group, name: str, percent: int, used: int, limit: int, unix_s: float
) -> Alert:
    """:param event: of a key or of a group. :param name: of the limit."""
    window, form = ("day", "%Y-%m-%d") if name.startswith("daily") else ("month", "%Y-%m")
    if name.endswith("_usd"):
        amount, of, spent = used / NUSD, limit / NUSD, f"${used / NUSD:,.2f} of ${limit / NUSD:,.2f}"
    else:
        amount, of, spent = used, limit, f"{used:,} of {limit:,} tokens"
    what = f"{'soft ' if holder.soft else ''}{name.partition('_')[0]} limit"
    has = "has reached its" if percent == 100 else f"has used {percent} % of its"
    more = ""
    if percent == 100:
        more = f" Its requests are answered with 402 until the {window} ends."
        more = " Its requests are served on." if holder.soft else more
    who: dict[str, Any] = {"group": holder.name}
    if isinstance(holder, Key):
        who = {"key": holder.name, "key_id": holder.id}
    fields = {
        **who,
        "limit": name,
        "soft": holder.soft,
        "percent": percent,
        "used": amount,
        "of": of,
        window: datetime.fromtimestamp(unix_s, UTC).strftime(form),
    }
    kind = "Group" if event == GROUP_LIMIT else "Key"
    return Alert(event, f"{kind} {holder.name} {has} {what}: {spent}.{more}", fields)


def moment(unix_s: float) -> str:
    """A moment as RFC 3339 writes it, in UTC, with milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def payload(alert: Alert, unix_s: float, host: str, version: str) -> dict[str, Any]:
    """The JSON of an alert, as docs/alerts.md describes it. ``unix_s``: when it was found."""
    return {
        "event": alert.event,
        "text": f"TokenHub at {host}: {alert.text}",
        "time": moment(unix_s),
        "gateway": {"host": host, "version": version},
        **alert.fields,
    }
