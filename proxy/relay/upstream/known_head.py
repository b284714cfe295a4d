"""A request's head with what was worked out for it, so that one that comes again is read and prepared once.

Kept as long as the head is remembered: :mod:`proxy.relay.exchange.head_cache`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from proxy.wire.request_head import RequestHead, read_request_head

if TYPE_CHECKING:
    from proxy.access.grants import Grant, KeyTable
    from proxy.access.tagging import Tagged
    from proxy.relay.upstream.provider import Provider
    from proxy.routing.request_options import Options


class KnownHead(RequestHead):
    """See the module's text.

    ``options``: what ``X-Inferoute-*`` say; None: not read yet. ``access``: the table of keys it was held
    against, what its key grants, and its tags. ``prepared``: the bytes to send, by provider, made when first
    sent on. ``dropped``: how many of its headers and parameters don't reach a provider; None: all reach all.
    ``weight``: bytes that it counts for while it is remembered, else 0.
    """

    def __init__(self, method: bytes, path: bytes, query: bytes, minor: int) -> None:
        super().__init__(method, path, query, minor)
        self.options: Options | None = None
        self.access: tuple[KeyTable, Grant | None, Tagged | None] | None = None
        self.prepared: dict[Provider, bytes] = {}
        self.dropped: dict[Provider, tuple[int, int]] | None = None
        self.weight = 0


def read_known_head(head: bytes) -> KnownHead:
    """:func:`proxy.wire.request_head.read_request_head`, for a head of which more will be worked out.

    :raises BadRequest: as that.
    """
    return cast(KnownHead, read_request_head(head, KnownHead))
