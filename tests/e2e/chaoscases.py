"""Traffic that tells each answer from every other, and a machine whose clock a test has in hand."""

from __future__ import annotations

import http.client
import json
import mmap
import shutil
import struct
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import openai
import pytest

from tests.support.fakes import Call

USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
HOLD = "hold"
# What a process says that has just stopped listening to whom it had accepted in the turn before: of several
# that come at once, the event loop accepts one in each turn. No provider has been asked.
SHUTTING_DOWN = (503, "The gateway is shutting down.", "1")


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
        await call.stream(first, _event({"choices": [], "usage": USAGE}), b"data: [DONE]\n\n")


def _event(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(value).encode()


def body_of(marker: str, *, stream: bool = False) -> str:
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return json.dumps({"model": "p/m", "messages": [{"role": "user", "content": marker}], **more})


class Traffic:
    """Clients that ask without a pause, in turns for a stream and for a whole answer; the last one is the
    official SDK. Each answer has to be the one to its own question.

    ``finished``: the ids of answers that came whole; ``others``: those that were not 200, as a status, the
    message and Retry-After; ``lost``: connections that broke.
    """

    def __init__(self, address: tuple[str, int], key: str, clients: int = 6) -> None:
        self.finished: list[str] = []
        self.others: Counter[tuple[int, str, str | None]] = Counter()
        self.lost = 0
        self.wrong: list[str] = []
        self._address = address
        self._key = key
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(clients - 1)
        ]
        self._threads.append(threading.Thread(target=self._ask_by_sdk, daemon=True))

    def _ask(self, client: int) -> None:
        connection: http.client.HTTPConnection | None = None
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        count = 0
        while not self._stop.is_set():
            count += 1
            marker, is_stream = f"<{client}-{count}>", count % 2 == 0
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(*self._address, timeout=30)
                connection.request("POST", "/v1/chat/completions", body_of(marker, stream=is_stream), headers)
                response = connection.getresponse()
                text = response.read().decode()
                self._note(response, text, marker, is_stream)
            except (OSError, http.client.HTTPException):
                self.lost += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.005)
        if connection is not None:
            connection.close()

    def _note(self, response: http.client.HTTPResponse, text: str, marker: str, is_stream: bool) -> None:
        if response.status != 200:
            self._note_other(response.status, text, response.headers.get("Retry-After"))
        elif text.count("<") != text.count(marker):
            self.wrong.append(f"{marker}: {text}")
        elif not is_stream or text.endswith("data: [DONE]\n\n"):  # else it was broken off
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
        host, port = self._address
        with openai.OpenAI(base_url=f"http://{host}:{port}/v1", api_key=self._key, max_retries=0) as sdk:
            count = 0
            while not self._stop.is_set():
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

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()
        assert self.wrong == []


class Machine:
    """What the shim below makes of the system: its calendar, and whether connections can be accepted."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("gcc") is None:
            pytest.skip("there is no gcc to compile what turns the clock")
        source, library = folder / "shim.c", folder / "shim.so"
        source.write_text(_SHIM)
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True, timeout=60)
        control = folder / "control"
        control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environ = {"LD_PRELOAD": str(library), "CHAOS_CONTROL": str(control)}

    def turn_clock(self, to_unix_s: float) -> None:
        """Have the calendar say that it is now that moment; clocks that only measure go on as they did."""
        struct.pack_into("q", self._memory, 0, int(to_unix_s - time.time()))


_SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile struct { long offset_s; } *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CONTROL");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) control = memory;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    if (!result && control && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += control->offset_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"""
