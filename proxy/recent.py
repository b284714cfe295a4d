"""The latest finished requests, for people: what a request was and what became of it, without its content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from proxy.deployment import Deployment
from proxy.retry import Failure, story
from proxy.usage import Usage

# How many are kept: a few minutes of a busy gateway, below a megabyte.
KEPT = 1000


class Finished(NamedTuple):
    """One request. Times are monotonic seconds; 0 where there is none. Kept as plain tuples, and no text is
    built that nobody may ask for: there is one for every request."""

    id: bytes
    begun_at: float
    ready_at: float  # the last of what the choice needed had come
    sent_at: float  # the first attempt was on its way
    ended_at: float
    endpoint: str
    streamed: bool
    model_requested: str | None
    status: int  # of the answer; 499: the client left before there was one
    failures: Sequence[Failure]
    others: int  # attempts that didn't fail: the one that answered, or those the client left
    deployment: Deployment | None  # of the last attempt
    first_byte_at: float
    usage: Usage | None
    cost_nusd: int | None


def row(kept: Sequence[Any], wall_offset_s: float) -> dict[str, Any]:
    """The row of ``/admin/v1/requests``.

    :param kept: the fields of a :class:`Finished`.
    :param wall_offset_s: what makes Unix seconds of monotonic ones.
    """
    finished = Finished._make(kept)
    usage = finished.usage
    cost = finished.cost_nusd
    first = finished.first_byte_at
    deployment = finished.deployment
    return {
        "id": finished.id.decode(),
        "time": round(finished.ended_at + wall_offset_s, 3),
        "key": None,
        "endpoint": finished.endpoint,
        "stream": finished.streamed,
        "model_requested": finished.model_requested,
        "model": deployment and deployment.id,
        "provider": deployment and deployment.provider.name,
        "status": finished.status,
        "attempts": len(finished.failures) + finished.others,
        "failed_attempts": story(finished.failures).decode(),
        "ttft_ms": round((first - finished.begun_at) * 1000, 3) if first else None,
        "total_ms": round((finished.ended_at - finished.begun_at) * 1000, 3),
        "overhead_us": round((finished.sent_at - finished.ready_at) * 1e6) if finished.sent_at else None,
        "input_tokens": usage.input_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "usd": None if cost is None else cost / 1e9,
        "usage_source": None if usage is None else "estimated" if usage.estimated else "provider",
    }
