"""Policy for the end of streams: which must send a last event of their own for the end to be believed.

A provider that fails in the middle of a response, or a proxy before it, often ends the message as if it were
whole. So the end of a message is not believed where every response has an end of its own: at four endpoints,
for event streams that can be read. A deployment that never sends one is believed after a while.
"""

from __future__ import annotations

from typing import Final

from proxy.access.grants import would_go_along
from proxy.deployments.row import Row
from proxy.endpoints import WRITING
from proxy.errors import GatewayError
from proxy.relay.exchange.request import Request
from proxy.relay.upstream.provider import Provider
from proxy.wire.framing import Body
from proxy.wire.header_lines import without
from proxy.wire.lead_in import LeadIn
from proxy.wire.response import Response
from proxy.wire.response_head import ResponseHead
from proxy.wire.stream_end import UNENDED, WHOLE
from proxy.wire.stream_errors import last_event

# Where a redirect leads: a client that follows it would take its credentials along.
_LOCATION: Final = frozenset((b"location",))
# After this many streams in a row without a last event, the deployment is taken to send none.
BELIEVED_AFTER: Final = 20
# For people: what a provider did.
NO_END: Final = "ended the stream before the answer was complete"


def begin(
    head: ResponseHead, body: Body, request: Request, provider: Provider, row: Row, takes_usage_out: bool
) -> Response:
    """The response that begins with ``head``, which believes the end of its message or not.

    :param takes_usage_out: as in :class:`proxy.wire.response.Response`.
    """
    if head.leads_on and would_go_along(request.head.credentials):
        head.lines = without(head.lines, _LOCATION)
    status, ends_as, minor = head.status, "", request.head.minor
    if head.event_stream and not provider.believes_framing and 200 <= status < 300 and status != 204:
        ends_as = request.endpoint if request.endpoint in WRITING else ""
    believes = row.endless >= BELIEVED_AFTER
    lead_in = LeadIn(request.endpoint) if head.event_stream and status < 300 else None
    return Response(
        head, body, minor,
        takes_usage_out=takes_usage_out, ends_as=ends_as, believes=believes, lead_in=lead_in,
    )  # fmt: skip


def learn(response: Response, row: Row) -> None:
    """The message is at its end: the row learns whether its streams say so.

    Streams that end within an event, or without one, are no whole ones and teach nothing; nor do errors.
    """
    if response.ending == WHOLE:
        row.endless = 0
    elif response.ending == UNENDED and response.passed_bytes and response.ends_with_event():
        row.endless += 1


def last_bytes(
    response: Response, ending: int, error: GatewayError, endpoint: str, request_id: bytes
) -> bytes:
    """Make the last event that a client gets in place of the end that never came, between two events.

    :param ending: how the stream stood; the response's own end, or the provider's own error, was told
        already.
    """
    event = b""
    if ending == UNENDED:
        event = last_event(error, endpoint, request_id, response.first, response.tail())
    return response.wrap_event(event, last=True)
