"""The gateway that is measured: its configuration, its ports, and the keys and names that cases use."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from proxy.storage.database import connect
from proxy.storage.key_table import make_key, store_key

PROVIDERS = 10
PATTERNS = 2  # of five keys, the one that has as many patterns for models as a key may have
ASKING = 3  # the provider that is asked for the usage of streams, which is taken out again
TOKEN = "turns-admin-token"

_CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
workers = 1
[admin]
listen = "127.0.0.1:{admin_port}"
token_env = "TURNS_ADMIN_TOKEN"
[auth]
required = true
[state]
path = "{state}"
[timeouts]
first_byte = "60s"
idle = "60s"
[routing.eject]
consecutive_failures = 1000
error_rate = 1.0
"""
_PROVIDER = """
[providers.p{number}]
base_url = "http://127.0.0.1:{port}/p{number}/v1"
auth = "none"
endpoints = ["chat", "completions", "responses", "messages", "embeddings"]
request_stream_usage = {asks}
"""
_MODEL = """
[models."{id}"]
input_price = 1
output_price = 2
context_window = 128000
max_output_tokens = 4096
capabilities = ["chat", "responses", "messages", "tools"]
"""


@dataclass
class Setup:
    """See the module's text.

    :param provider_port: of the scripted provider, which stands in for all of them.
    """

    folder: Path
    provider_port: int
    models: int
    keys: int
    secrets: list[str] = field(default_factory=list)  # of the keys, once they are made

    def __post_init__(self) -> None:
        self.port, self.admin_port = free_ports(2)
        self.names = [f"p{number % PROVIDERS}/model-{number:05}" for number in range(self.models)]
        # A pool of two, so that bodies are held; and one of all models.
        self.pair = "pair"
        self.text = self._text()
        self.file.write_text(self.text)
        self._make_keys()

    @property
    def file(self) -> Path:
        """The configuration."""
        return self.folder / "routes.toml"

    @property
    def state(self) -> Path:
        """The database of keys."""
        return self.folder / "state.db"

    def _make_keys(self) -> None:
        database = connect(str(self.state))
        for number in range(self.keys):
            settings: dict[str, object] = {
                "name": f"key-{number:03}",
                "rpm": 100_000_000,
                "monthly_nusd": 10**15,
            }
            if number % 5 == 1:
                settings["models"] = tuple(self.names)
            elif number % 5 == PATTERNS:
                patterns = (f"p?/*m*d*l*-{number:03}{at:03}*" for at in range(199))
                settings["models"] = (*patterns, "p0/*")
            key, secret = make_key(settings, time.time())
            store_key(database, key)
            self.secrets.append(secret)
        database.close()

    def _text(self) -> str:
        parts = [_CONFIG.format(port=self.port, admin_port=self.admin_port, state=self.state)]
        parts += [
            _PROVIDER.format(number=number, port=self.provider_port, asks=str(number == ASKING).lower())
            for number in range(PROVIDERS)
        ]
        parts += [_MODEL.format(id=name) for name in self.names]
        pair = ", ".join(f'"{name}"' for name in self.names[:2])
        everything = ", ".join(f'"{name}"' for name in self.names)
        parts.append(f"\n[aliases]\npair = [{pair}]\neverything = [{everything}]\n")
        parts += [
            f'alias-{number:03} = ["{self.names[number]}"]\n' for number in range(min(100, self.models))
        ]
        return "".join(parts)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at the moment."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in socks]
    for sock in socks:
        sock.close()
    return ports
