"""The contract of a client, which both kinds keep."""

from __future__ import annotations

import pytest

from proxy.relay.downstream.connection import ClientConnection
from proxy.relay.exchange.client import NEVER, Client
from proxy.relay.exchange.detached_client import DetachedClient

CONTRACT = {name for name in vars(Client) if not name.startswith("_")} - {"wake_at", "wake_by"}


def test_the_earliest_time_counts():
    client = Client()
    assert client.wake_at == NEVER
    client.wake_by(5.0)
    client.wake_by(7.0)
    assert client.wake_at == 5.0


@pytest.mark.parametrize(
    ("kind", "without"),
    [(ClientConnection, set()), (DetachedClient, {"read_on"})],  # nothing is read of who has left
)
def test_each_kind_has_all_of_it(kind, without):
    lacking = {name for name in CONTRACT if getattr(kind, name) is getattr(Client, name)}
    assert lacking == without
