"""The client, as an exchange sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.errors import GatewayError

NEVER: Final = float("inf")


class Client:
    """A client's connection, or what stands in for one that has left. All times are monotonic seconds.

    ``wake_at``: when :meth:`on_wake` is to be called; the ticks are 100 ms apart.
    """

    __slots__ = ("wake_at",)

    def __init__(self) -> None:
        self.wake_at = NEVER

    def wake_by(self, when: float) -> None:
        """Have :meth:`on_wake` called at ``when`` at the latest."""
        if when < self.wake_at:  # noqa: PLR1730  # min() takes three times as long
            self.wake_at = when

    def on_wake(self, now: float) -> None:
        """The time asked for has come."""
        raise NotImplementedError

    def is_closing(self) -> bool:
        """Nothing that is sent now reaches the client."""
        raise NotImplementedError

    def pause_reading(self, pause: bool) -> None:
        """Stop or go on reading the request."""
        raise NotImplementedError

    def read_on(self) -> None:
        """Take the next request, now or when it comes."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send at once, after what was sent before."""
        raise NotImplementedError

    def send_soon(self, data: bytes, now: float) -> None:
        """Send by the end of this turn of the event loop."""
        raise NotImplementedError

    def keeps_alive(self) -> bool:
        """Return whether the connection can take a further request."""
        raise NotImplementedError

    def on_exchange_done(self, reusable: bool) -> None:
        """The response is out.

        :param reusable: the request was read to its end, and the response told its own.
        """
        raise NotImplementedError

    def answer_error(self, error: GatewayError, request_id: bytes, names: bytes = b"") -> None:
        """Respond with an error of the gateway's own. ``names``: further header lines, each with its CRLF."""
        raise NotImplementedError

    def refuse(self, error: GatewayError) -> None:
        """Stop the exchange and respond with what is wrong with the request."""
        raise NotImplementedError

    def cut(self, gently: bool) -> None:
        """End the connection in the middle of a response, so that what came can't be taken for the whole.

        :param gently: the framing shows the cut, so what is written may still go out.
        """
        raise NotImplementedError

    def close_if_idle(self) -> None:
        """The gateway drains: close a connection without a request."""
        raise NotImplementedError

    def abort(self) -> None:
        """Close at once; what is not sent yet is lost."""
        raise NotImplementedError
