"""Keys and limits of the installed program: with several workers, over restarts, with the official SDKs."""

from __future__ import annotations

import json
import signal

import openai
import pytest

from tests.e2e import Gateway
from tests.e2e.one_provider import TEXT, asking, keys, provider_of, told


@pytest.fixture
def text():
    with provider_of() as url:
        yield TEXT.format(url=url)


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
        sdk = openai.OpenAI(base_url=f"{gateway.address}/v1", api_key="none", max_retries=0)

        def ask(key: str, **more: object) -> None:
            hi = [{"role": "user", "content": "hi"}]
            sdk.with_options(api_key=key).chat.completions.create(model="p/m", messages=hi, **more)

        def known(key: str) -> list[str]:
            return [model.id for model in sdk.with_options(api_key=key).models.list()]

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
        sdk.close()
