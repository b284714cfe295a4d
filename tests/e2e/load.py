"""Clients that ask without a pause while something is done to the gateway."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from typing import Self

import openai

from tests.e2e import Gateway
from tests.e2e.asking import CHAT, wait_for
from tests.support.fakes import DONE, Call

USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
HOLD = "hold"
# What a process says that has just stopped listening to whom it had accepted in the turn before: of several
# that come at once, the event loop accepts one in each turn. No provider has been asked.
SHUTTING_DOWN = (503, "The gateway is shutting down.", "1")


class Clients:
    """Threads that ask one request after the other, each on its connection, until the context is left.

    ``lost``: connections that broke with a request in them.
    """

    def __init__(self, address: tuple[str, int], count: int) -> None:
        self.lost = 0
        self.address = address
        self.stopped = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(count)
        ]

    def ask(self, connection: http.client.HTTPConnection, client: int, count: int) -> None:
        """One request and its answer."""
        raise NotImplementedError

    def _run(self, client: int) -> None:
        connection: http.client.HTTPConnection | None = None
        count = 0
        while not self.stopped.is_set():
            count += 1
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(*self.address, timeout=30)
                self.ask(connection, client, count)
            except (OSError, http.client.HTTPException):
                self.lost += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.005)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(40)
            assert not thread.is_alive()


class Load(Clients):
    """Of the simulator. ``outcomes``: how often each status came."""

    def __init__(self, gateway: Gateway, clients: int = 8, model: str = "p/m") -> None:
        super().__init__(gateway.host_and_port, clients)
        self.outcomes: Counter[int] = Counter()
        self._body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]})

    def ask(self, connection: http.client.HTTPConnection, client: int, count: int) -> None:
        headers = {"Content-Type": "application/json", "x-sim-latency-ms": "5", "x-sim-delay-ms": "0"}
        connection.request("POST", CHAT, self._body, headers)
        response = connection.getresponse()
        response.read()
        self.outcomes[response.status] += 1

    def __enter__(self) -> Self:
        super().__enter__()
        wait_for(lambda: self.outcomes[200] > 50)
        return self


# ---------------------------------------------------------------------- each its own answer


async def marked(call: Call) -> None:
    """A provider that answers with what it was told, as a stream where it is asked for one; what it is told
    to hold it streams without an end."""
    while True:
        _, body = await call.request()
        asked = json.loads(body)
        marker = asked["messages"][0]["content"] if "messages" in asked else ""
        if not asked.get("stream"):
            message = {"role": "assistant", "content": marker}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
            await call.answer(json.dumps(answer | {"usage": USAGE}).encode())
            continue
        first = _event({"choices": [{"index": 0, "delta": {"content": marker}}]})
        if marker == HOLD:
            await call.stream(first, end=False)
            await call.gone()
            return
        await call.stream(first, _event({"choices": [], "usage": USAGE}), DONE)


def _event(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


def body_of(marker: str, *, stream: bool = False) -> str:
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return json.dumps({"model": "p/m", "messages": [{"role": "user", "content": marker}], **more})


class Traffic(Clients):
    """Of a provider that is :func:`marked`, in turns for a stream and for a whole answer; the last client is
    the official SDK. Each answer has to be the one to its own question.

    ``finished``: the ids of answers that came whole; ``others``: those that were not 200, as a status, the
    message and Retry-After.
    """

    def __init__(self, address: tuple[str, int], key: str, clients: int = 6) -> None:
        super().__init__(address, clients - 1)
        self.finished: list[str] = []
        self.others: Counter[tuple[int, str, str | None]] = Counter()
        self.wrong: list[str] = []
        self._key = key
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self.threads.append(threading.Thread(target=self._ask_by_sdk, daemon=True))

    def ask(self, connection: http.client.HTTPConnection, client: int, count: int) -> None:
        marker, is_stream = f"<{client}-{count}>", count % 2 == 0
        connection.request("POST", CHAT, body_of(marker, stream=is_stream), self._headers)
        response = connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            self._note_other(response.status, text, response.headers.get("Retry-After"))
        elif text.count("<") != text.count(marker):
            self.wrong.append(f"{marker}: {text}")
        elif not is_stream or text.endswith(DONE.decode()):  # else it was broken off
            if text.count(marker) != 1:
                self.wrong.append(f"{marker}: {text}")
            self.finished.append(response.headers["X-Inferoute-Request-Id"])

    def _note_other(self, status: int, text: str, retry_after: str | None) -> None:
        try:
            text = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            pass  # then it is told as it is
        self.others[status, text, retry_after] += 1

    def _ask_by_sdk(self) -> None:
        host, port = self.address
        with openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key=self._key, max_retries=0) as sdk:
            count = 0
            while not self.stopped.is_set():
                count += 1
                marker = f"<sdk-{count}>"
                try:
                    raw = sdk.chat.completions.with_raw_response.create(
                        model="p/m", messages=[{"role": "user", "content": marker}]
                    )
                    if raw.parse().choices[0].message.content != marker:
                        self.wrong.append(marker)
                    self.finished.append(raw.headers["X-Inferoute-Request-Id"])
                except openai.APIStatusError as error:
                    answer = error.response
                    self._note_other(answer.status_code, answer.text, answer.headers.get("Retry-After"))
                except openai.APIConnectionError:
                    self.lost += 1
                    time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        assert self.wrong == []
