"""Keys and limits of the installed program: with several workers, over restarts, with the official SDKs."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import openai
import pytest

from tests.e2e import Gateway, run
from tests.e2e.test_installed import wait_for
from tests.e2e.test_ledger import TEXT, Provider, told
from tests.e2e.test_workers import workers_of


@pytest.fixture
def text():
    with Provider() as url:
        yield TEXT.format(url=url)


def keys(gateway: Gateway, *command: str) -> str:
    done = run(
        "keys", *command, "--admin", gateway.admin, "--config", str(gateway.config), cwd=gateway.config.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NUMBERS = count()


def asking(gateway: Gateway, key: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*gateway.host_and_port, timeout=10)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    # What fails only for one body is not blamed on the provider.
    body = f'{{"model":"p/m","user":"{next(NUMBERS)}"}}'
    connection.request("POST", "/v1/chat/completions", body, headers)
    response = connection.getresponse()
    response.body = response.read()
    connection.close()
    return response


def statuses(gateway: Gateway, key: str, count: int) -> Counter[int]:
    """Of so many requests, 16 at a time, each on a connection of its own: they spread over the workers."""
    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(lambda _: asking(gateway, key).status, range(count)))


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_limit_is_exact_over_all_workers(tmp_path, text, workers):
    with Gateway(tmp_path, text, "--workers", workers) as gateway:
        key = keys(gateway, "create", "--name", "k", "--rpm", "37")
        assert statuses(gateway, key, 120) == {200: 37, 429: 83}
        refused = asking(gateway, key)
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.headers["X-RateLimit-Limit-Requests"] == "37"
        assert refused.headers["X-RateLimit-Remaining-Requests"] == "0"
        keys(gateway, "edit", "k", "--rpm", "40")  # holds for the next request, and what was used stays used
        assert statuses(gateway, key, 10) == {200: 3, 429: 7}
        keys(gateway, "edit", "k", "--rpm", "none")
        assert statuses(gateway, key, 20) == {200: 20}
        keys(gateway, "revoke", "k")
        assert statuses(gateway, key, 20) == {401: 20}


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_rotation_holds_at_all_workers_and_the_former_secret_ends_by_itself(tmp_path, text, workers):
    with Gateway(tmp_path, text, "--workers", workers) as gateway:
        first = keys(gateway, "create", "--name", "k", "--rpm", "10000")
        assert statuses(gateway, first, 20) == {200: 20}
        second = keys(gateway, "rotate", "k")
        assert statuses(gateway, first, 20) == statuses(gateway, second, 20) == {200: 20}
        assert asking(gateway, second).headers["X-RateLimit-Remaining-Requests"] == "9939"  # one account
        third = keys(gateway, "rotate", "k", "--overlap", "1s")
        assert statuses(gateway, first, 10) == {401: 10}
        wait_for(lambda: asking(gateway, second).status == 401, 10)
        assert statuses(gateway, second, 10) == {401: 10}
        assert statuses(gateway, third, 10) == {200: 10}


def test_a_key_of_a_worker_that_died_is_good_at_the_next(tmp_path, text):
    with Gateway(tmp_path, text, "--workers", "2") as gateway:
        key = keys(gateway, "create", "--name", "k", "--rpm", "20", "--concurrency", "64")
        assert statuses(gateway, key, 4) == {200: 4}
        before = set(workers_of(gateway.process.pid))
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: len(set(workers_of(gateway.process.pid)) - before) == 2, 40)
        wait_for(lambda: _is_up(gateway, key), 20)
        # One of the requests made sure that it is up; the windows outlive the workers. (The concurrency
        # is more than is asked at once: which of 16 threads would be refused depends on the machine's speed.)
        assert statuses(gateway, key, 30)[200] == 15


def _is_up(gateway: Gateway, key: str) -> bool:
    try:
        return asking(gateway, key).status == 200
    except (OSError, http.client.HTTPException):
        return False


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_month_outlives_the_process(tmp_path, text, end):
    with Gateway(tmp_path, text) as gateway:
        key = keys(gateway, "create", "--name", "k", "--monthly-tokens", "600", "--monthly-usd", "1")
        assert [asking(gateway, key).status for _ in range(3)] == [200] * 3  # 150 tokens each
        gateway.signal(end)
        gateway.wait()
        gateway.process.returncode = 0
    with Gateway(tmp_path, text) as gateway:
        assert [asking(gateway, key).status for _ in range(3)] == [200, 402, 402]
        body = json.loads(asking(gateway, key).body)["error"]
        assert (body["type"], body["code"]) == ("usage_limit_exceeded", "monthly_limit_reached")
        [row] = told(tmp_path, "keys", "list")
        assert row["month"] == {"tokens": 600, "usd": 0.0008}


def test_what_the_sdk_makes_of_refusals(tmp_path, text):
    with Gateway(tmp_path, text) as gateway:

        def client(key: str) -> openai.OpenAI:
            return openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=key, max_retries=0)

        def ask(key: str, **more: object) -> None:
            with client(key) as sdk:
                sdk.chat.completions.create(model="p/m", messages=[{"role": "user", "content": "hi"}], **more)

        def known(key: str) -> list[str]:
            with client(key) as sdk:
                return [model.id for model in sdk.models.list()]

        rpm = keys(gateway, "create", "--name", "rpm", "--rpm", "1")
        models = keys(gateway, "create", "--name", "models", "--models", "q/*", "--max-tokens", "5")
        tokens = keys(gateway, "create", "--name", "tokens", "--max-tokens", "5")
        spent = keys(gateway, "create", "--name", "spent", "--monthly-tokens", "1")
        ask(rpm)
        with pytest.raises(openai.RateLimitError):
            ask(rpm)
        with pytest.raises(openai.PermissionDeniedError):
            ask(models)
        with pytest.raises(openai.UnprocessableEntityError):
            ask(tokens, max_tokens=6)
        ask(tokens, max_tokens=5)
        with pytest.raises(openai.AuthenticationError):
            ask("th-" + "x" * 43)
        ask(spent)
        with pytest.raises(openai.APIStatusError) as caught:
            ask(spent)
        assert caught.value.status_code == 402
        assert known(models) == []
        assert known(tokens) == ["p/m"]
        with pytest.raises(openai.RateLimitError):
            known(rpm)
