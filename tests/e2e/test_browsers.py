"""A chat page of another origin, in a real browser, before the installed program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from tests.e2e import Gateway
from tests.e2e.background import application, in_thread
from tests.e2e.browser import Browser, needs_browser
from tests.e2e.test_dashboard import config_text, make_key

pytestmark = needs_browser
# As a chat front end does it: JSON, a key in Authorization, a header of ours, the answer as a stream.
ASK = """
const [address, key, model, done] = arguments;
(async () => {
  try {
    const response = await fetch(`${address}/v1/chat/completions`, {
      method: "POST",
      headers: {
        "Authorization": `Bearer ${key}`,
        "Content-Type": "application/json",
        "X-Inferoute-Strategy": "cost",
      },
      body: JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "hi" }] }),
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "", pieces = 0;
    for (let part; !(part = await reader.read()).done; pieces++) text += part.value;
    done({
      status: response.status, text, pieces,
      provider: response.headers.get("x-inferoute-provider"),
      id: response.headers.get("x-request-id") ?? response.headers.get("x-inferoute-request-id"),
      left: response.headers.get("x-ratelimit-remaining-requests"),
    });
  } catch (error) {
    done({ failed: String(error) });
  }
})();
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Where the page is from, an empty one."""

    async def empty(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>chat</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/{any:.*}", empty)
    with in_thread(application(app)) as address:
        yield address


@pytest.fixture(scope="module")
def page(origin, tmp_path_factory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.driver.get(origin)
        yield browser


def gateway_for(folder, origin: str) -> Gateway:
    text = config_text().replace("# cors_origins = []", f'cors_origins = ["{origin}"] #')
    return Gateway(folder, text)


def ask(page: Browser, gateway: Gateway, key: str, model: str = "economy") -> dict[str, Any]:
    return page.driver.execute_async_script(ASK, gateway.address, key, model)


def test_a_page_that_may_call(page, origin, tmp_path):
    with gateway_for(tmp_path, origin) as gateway:
        key = make_key(gateway, name="web", rpm=100)
        answer = ask(page, gateway, key)
        assert answer.get("status") == 200, answer
        assert answer["text"].endswith("data: [DONE]\n\n")
        assert answer["pieces"] > 1
        assert answer["provider"]
        assert answer["left"] == "99"
        # What is wrong can be read too, and not only that something is.
        refused = ask(page, gateway, "th-wrong")
        assert refused["status"] == 401
        assert "not a key of this gateway" in refused["text"]
        assert refused["id"].startswith("req_")
        assert ask(page, gateway, key, "no-such-model")["status"] == 404


def test_a_page_that_may_not(page, origin, tmp_path):
    with gateway_for(tmp_path, "https://chat.example.com") as gateway:
        key = make_key(gateway, name="web")
        assert "Failed to fetch" in ask(page, gateway, key)["failed"]
