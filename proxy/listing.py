"""The rows of ``/v1/models``: what a name is, for people and SDKs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from proxy.config import ENDPOINTS

if TYPE_CHECKING:
    from proxy.deployment import Deployment

# What clients ask for beside endpoints; always told, so that false can be read as false.
_FEATURES = ("tools", "vision")


def model_row(deployment: Deployment, created: int) -> dict[str, Any]:
    """One model at one provider.

    :param created: Unix seconds.
    """
    model = deployment.model
    prices = {"input": model.input_price_usd_per_mtok, "output": model.output_price_usd_per_mtok}
    return {
        "id": deployment.id,
        "object": "model",
        "created": created,
        "owned_by": deployment.provider.name,
        "context_window": deployment.context_window,
        "max_output_tokens": model.max_output_tokens,
        "capabilities": _capabilities((deployment,)),
        "pricing": None if prices["input"] is None and prices["output"] is None else prices,
    }


def group_row(name: str, members: tuple[Deployment, ...], created: int) -> dict[str, Any]:
    """A name for several: limits that hold for each of them; no price, which depends on the member."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "tokenhub",
        "context_window": _least(member.context_window for member in members),
        "max_output_tokens": _least(member.model.max_output_tokens for member in members),
        "capabilities": _capabilities(members),
        "pricing": None,
    }


def _capabilities(members: Iterable[Deployment]) -> dict[str, bool]:
    """Endpoints and features that at least one member has: where one is needed, the others are skipped."""
    members = tuple(members)
    extras = {capability for member in members for capability in member.capabilities}.difference(ENDPOINTS)
    result = {endpoint: any(endpoint in member.endpoints for member in members) for endpoint in ENDPOINTS}
    result.update((feature, feature in extras) for feature in sorted({*_FEATURES, *extras}))
    return result


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)
