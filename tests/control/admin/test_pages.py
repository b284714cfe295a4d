"""The dashboard's files as they are served. What they do is for tests/e2e/test_dashboard.py to see."""

from __future__ import annotations

import re

import pytest

from proxy.control.admin.pages import FOLDER, PAGE, assets
from tests.support.admin_api import TEXT, WITH_TOKEN, ask, check_error

PATHS = {path: "/" if path == PAGE else f"/assets/{path}" for path in assets()}


def test_every_file_is_served_but_the_papers():
    files = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert files - assets().keys() == {"vendor/README.md", "vendor/uPlot.LICENSE"}
    assert len({asset.tag for asset in assets().values()}) == len(assets())  # tags tell them apart


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_comes_with_its_type_and_what_browsers_must_obey(start, path):
    server = await start(TEXT)
    status, fields, body = await ask(server, "GET", PATHS[path])
    assert (status, body) == (200, (FOLDER / path).read_bytes())
    types = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert fields[b"content-type"].decode() == f"{types[path.rpartition('.')[2]]}; charset=utf-8"
    assert (fields[b"x-content-type-options"], fields[b"referrer-policy"]) == (b"nosniff", b"no-referrer")
    assert fields[b"cache-control"] == b"no-cache"
    policy = dict(rule.split(" ", 1) for rule in fields[b"content-security-policy"].decode().split("; "))
    assert policy["default-src"] == "'none'"
    for kind in ("script-src", "style-src", "connect-src"):
        assert policy[kind] == "'self'"
    for kind in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[kind] == "'none'"


async def test_what_a_browser_has_is_not_sent_again(start):
    server = await start(TEXT)
    _, fields, _ = await ask(server, "GET", "/assets/style.css")
    tag = fields[b"etag"].decode()
    assert re.fullmatch('"[0-9a-f]{32}"', tag)  # a strong one
    for known in (tag, f'"other", W/{tag}', "*"):
        status, again, body = await ask(
            server, "GET", "/assets/style.css", extra=f"If-None-Match: {known}\r\n"
        )
        assert (status, body, again[b"etag"].decode()) == (304, b"", tag)
        assert again[b"cache-control"] == b"no-cache"
    status, _, body = await ask(server, "GET", "/assets/style.css", extra='If-None-Match: "other"\r\n')
    assert status == 200
    assert body


async def test_no_token_is_needed_to_see_it_and_one_for_all_it_asks(start):
    guarded = await start(WITH_TOKEN, T="secret")
    for path in PATHS.values():
        assert (await ask(guarded, "GET", path))[0] == 200, path
    for path in ("/admin/v1/routes", "/assets", "//", "/index.html"):  # and what is beside it
        check_error(await ask(guarded, "GET", path), 401, "invalid_admin_token")


async def test_nothing_else_is_served(start):
    server = await start(TEXT)
    for path in (
        "x.js", "vendor/README.md", "../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "vendor", "vendor/",
        "%00",
    ):  # fmt: skip
        check_error(await ask(server, "GET", f"/assets/{path}"), 404, "unknown_path")
    fields = check_error(await ask(server, "OPTIONS", "/"), 405, "method_not_allowed")
    assert b"GET" in fields[b"allow"]


# ---------------------------------------------------------------------- what the files say

OURS = {path: asset.content.decode() for path, asset in assets().items() if not path.startswith("vendor/")}


def test_no_file_asks_anybody_else_for_anything_and_every_file_that_is_named_is_there():
    """But names of XML's own, which nobody asks for; uPlot's says where it comes from."""
    for path, asset in assets().items():
        text = asset.content.decode().replace("http://www.w3.org/2000/svg", "")
        text = re.sub(r"\A/\*! https://github.com/leeoniya/uPlot .*\*/", "", text)
        assert not re.search(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", text), path
    for path, text in OURS.items():
        for name in re.findall(r'(?:src|href)="assets/([^"]+)"', text) + re.findall(
            r'from "\./([^"]+)"', text
        ):
            assert name in assets(), f"{path} names {name}"


def test_nothing_is_inline_or_made_of_markup_and_the_parts_are_small():
    page = OURS[PAGE]
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", page)
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function"
    for path, text in OURS.items():
        assert not re.search(ways, text), path
    # As the modules of the program: what is longer has two subjects.
    for path, text in OURS.items():
        lines = text.splitlines()
        assert len(lines) <= 400, path
        assert max(map(len, lines)) <= 120, path


def test_the_library_is_the_one_that_its_paper_names():
    [version] = re.findall(r"uPlot ([0-9.]+)", (FOLDER / "vendor/README.md").read_text())
    assert f"(v{version})".encode() in assets()["vendor/uPlot.iife.min.js"].content[:100]
    assert "MIT" in (FOLDER / "vendor/uPlot.LICENSE").read_text()
