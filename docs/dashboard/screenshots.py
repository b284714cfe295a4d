"""Takes the pictures of this directory: of a gateway with weeks of usage and minutes of load.

    python docs/dashboard/screenshots.py [SECONDS]

Needs the extras test and bench, and Debian's packages chromium, chromium-driver and (for the looks)
fonts-inter. The providers are simulated ones that cost what the real ones do. SECONDS is how long the load
runs before the pictures are taken; after 330 the charts are full.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import orjson
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from proxy.storage.ledger_files import Ledger, directory_of  # noqa: E402
from tests.e2e import ROOT, TOKENHUB, Gateway  # noqa: E402
from tests.e2e.browser import Browser  # noqa: E402

PAGES = ("overview", "routes", "aliases", "keys", "usage?by=model&since={since}", "requests?limit=200")
ALIASES = """
[aliases.assistant]
split = { "openai/gpt-4o" = 80, "anthropic/claude-sonnet-5-5" = 15, "google/gemini-3.1-pro-preview" = 5 }
sticky = "header:x-user"

[aliases.resilient]
models = ["mistral/mistral-small-2603", "openai/gpt-6-luna", "google/gemini-3.5-flash-lite"]
strategy = "round-robin"
hedge = "p95"
"""
KEYS = (
    {"name": "search-prod", "monthly_usd": 400, "monthly_tokens": 900_000_000, "rpm": 6000},
    {"name": "support-chat", "monthly_usd": 250, "rpm": 1200, "tpm": 2_000_000,
     "models": ["premium", "openai/*", "assistant", "balanced", "resilient"]},
    {"name": "batch-labelling", "monthly_tokens": 60_000_000, "concurrency": 16, "max_tokens": 4000},
    {"name": "summer-intern", "monthly_usd": 20, "rpm": 120, "expires": "5d"},
    {"name": "old-pipeline"},
)  # fmt: skip
# model, provider, tokens in and out of a request, nano-dollars for each of them, requests a day in thousands
PAST = (
    ("openai/gpt-4o", 900, 220, 2500, 10_000, 1.5),
    ("anthropic/claude-3-5-sonnet", 1400, 260, 2000, 10_000, 1.1),
    ("openai/gpt-4o-mini", 700, 180, 150, 600, 6.0),
    ("anthropic/claude-sonnet-5-5", 1100, 240, 2000, 10_000, 0.6),
    ("google/gemini-3.1-pro-preview", 3000, 300, 2000, 12_000, 0.3),
    ("anthropic/claude-3-haiku", 600, 150, 100, 500, 5.0),
    ("openai/text-embedding-3-small", 400, 0, 20, 0, 4.0),
)
# Holds the list still at a request that had several attempts, once there is one.
OPEN_ONE = """
const row = document.querySelector("[data-label=Attempts] .badge")?.closest("tr");
if (!row) return false;
document.querySelector(".toolbar button").click();
row.querySelector(".opener").click();
row.scrollIntoView({ block: "center" });
return true;
"""
ASKED = (
    *["balanced"] * 6,
    *["premium"] * 4,
    *["economy"] * 5,
    *["assistant"] * 4,
    *["resilient"] * 3,
    "long-context",
)


def config(simulator: str) -> str:
    """The repository's configuration, with every provider at the simulator, and one of them down."""
    text = (ROOT / "routes.toml").read_text().replace('mode = "auto"', 'mode = "never"')
    lines = []
    for line in text.splitlines():
        if line.startswith("base_url"):
            lines.append(f'base_url = "{simulator}"')
        elif line.startswith("api_key_env"):
            lines.append('auth = "none"\npass_headers = ["x-sim-*"]')
        elif not line.startswith("auth"):
            lines.append(line)
        if line == "[providers.mistral]":
            lines.append('headers = { "x-sim-status" = "503" }')
    return "\n".join(lines).replace("127.0.0.1:8080", "127.0.0.1:0") + ALIASES


def call(gateway: Gateway, method: str, path: str, body: object = None) -> dict:
    sent = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    connection = http.client.HTTPConnection(gateway.admin.removeprefix("http://"), timeout=10)
    connection.request(method, f"/admin/v1/{path}", sent, headers)
    found = json.load(connection.getresponse())
    connection.close()
    return found


def write_past(folder: Path, keys: list[dict]) -> None:
    """What four weeks would have left in the ledger, a line for ten requests."""
    rng = random.Random(4)
    ledger = Ledger(directory_of(str(folder / "tokenhub.db")), 0, 1)
    now = datetime.now(UTC)
    for back in range(1, 28):
        day = now - timedelta(days=back)
        busy = (0.45 if day.weekday() > 4 else 1.0) * (1.25 - back / 50) * rng.uniform(0.85, 1.15)
        for model, given, made, given_nusd, made_nusd, thousands in PAST:
            for _ in range(int(thousands * 100 * busy)):
                tokens = int(given * 10 * rng.uniform(0.5, 1.5)), int(made * 10 * rng.uniform(0.5, 1.5))
                line = {
                    "t": day.timestamp(), "model": model, "provider": model.partition("/")[0],
                    "key": rng.choices(keys, [6, 4, 2, 0.4, 0])[0]["id"],
                    "status": 503 if rng.random() < 0.006 else 200, "input": tokens[0], "output": tokens[1],
                    "cached": tokens[0] // 4, "nusd": tokens[0] * given_nusd + tokens[1] * made_nusd,
                }  # fmt: skip
                ledger.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    ledger.close()


async def ask(session: aiohttp.ClientSession, address: str, key: str) -> None:
    is_stream = random.random() < 0.7
    words = int(random.paretovariate(1.2) * 40) if random.random() < 0.95 else 4000
    body = {"model": random.choice(ASKED), "stream": is_stream, "max_tokens": random.choice([60, 120, 200]),
            "messages": [{"role": "user", "content": "word " * words}]}  # fmt: skip
    if is_stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"Authorization": f"Bearer {key}"}
    if random.random() < 0.01:
        headers["x-sim-status"] = "400"
    try:
        async with session.post(f"{address}/v1/chat/completions", json=body, headers=headers) as response:
            await response.read()
    except aiohttp.ClientError:
        pass  # the gateway has stopped


async def load(address: str, keys: list[str], end: threading.Event) -> None:
    """Some twelve requests a second, in waves."""
    tasks: set[asyncio.Task] = set()
    async with aiohttp.ClientSession() as session:
        while not end.is_set():
            task = asyncio.create_task(ask(session, address, random.choices(keys, [6, 4, 2, 0.4])[0]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(random.expovariate(12 + 6 * math.sin(time.monotonic() / 30)))


def take(browser: Browser, name: str, width: int, height: int, theme: str) -> None:
    browser.look(width, height, theme)
    browser.until(lambda: browser.run("return document.querySelector('main').innerText.length > 200"))
    time.sleep(2.5)  # for the live figures, and for what moves
    path = HERE / f"{name}-{width}-{theme}.png"
    browser.picture(path)
    # A palette is enough for a page, and takes a third of the room.
    picture = Image.open(path).convert("RGB")
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def take_all(gateway: Gateway) -> None:
    since = (datetime.now(UTC) - timedelta(days=27)).date().isoformat()
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        browser.look(1440)
        browser.open(gateway.admin)
        for page in PAGES:
            name = page.partition("?")[0]
            browser.go(page.format(since=since))
            take(browser, name, 1440, 900, "light")
            if name == "requests":
                browser.until(lambda: browser.run(OPEN_ONE))
            if name == "aliases":
                browser.press("Edit assistant")
                take(browser, "alias", 1440, 900, "light")
                browser.press("Cancel", "dialog")
            take(browser, name, 1440, 900, "dark")
            take(browser, name, 360, 740, "dark" if name in ("overview", "keys", "requests") else "light")


def run(folder: Path, simulator: str, seconds: float) -> None:
    text = config(simulator)
    with Gateway(folder, text) as gateway:
        keys = [call(gateway, "POST", "keys", settings) for settings in KEYS]
        call(gateway, "DELETE", f"keys/{keys[-1]['id']}")
    write_past(folder, keys)
    end = threading.Event()
    with Gateway(folder, text) as gateway:
        sent = load(gateway.address, [key["key"] for key in keys[:-1]], end)
        thread = threading.Thread(target=asyncio.run, args=(sent,))
        thread.start()
        try:
            time.sleep(seconds)
            take_all(gateway)
        finally:
            end.set()
            thread.join()


def main(seconds: float) -> None:
    command = [TOKENHUB, "simulate", "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as simulator,  # noqa: S603
    ):
        try:
            run(Path(name), simulator.stderr.readline().split()[1], seconds)
        finally:
            simulator.terminate()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 330.0)
