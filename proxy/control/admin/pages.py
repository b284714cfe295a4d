"""The dashboard at ``/`` of the admin listener: a page and its parts, which hold nothing secret.

They are read once, at the start. All figures come from the admin API, which the page calls like any client.
"""

from __future__ import annotations

import functools
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from aiohttp import ETag, web

FOLDER = Path(__file__).parent / "dashboard"
PAGE = "index.html"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Only content of this listener; styles are set by scripts one by one, which is no inline style.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, and revalidated each time: an update shows at the next load.
    "Cache-Control": "no-cache",
}
# Browsers send one tag, of the version that they have.
_MAX_TAGS_CHARS = 1000


class Asset(NamedTuple):
    """A file as it is served; ``tag`` differs with the content."""

    content: bytes
    type: str
    tag: str


@functools.cache
def assets() -> dict[str, Asset]:
    """The files of the dashboard, by their paths below its folder."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            tag = sha256(content).hexdigest()[:32]
            found[path.relative_to(FOLDER).as_posix()] = Asset(content, _TYPES[path.suffix], tag)
    return found


def add_pages(app: web.Application) -> None:
    """Add the dashboard to the application of the admin listener."""
    assets()
    app.router.add_get("/", _page)
    app.router.add_get("/assets/{path:.+}", _asset)


async def _page(request: web.Request) -> web.Response:
    return _answer(request, assets()[PAGE])


async def _asset(request: web.Request) -> web.Response:
    asset = assets().get(request.match_info["path"])
    if asset is None:
        raise web.HTTPNotFound
    return _answer(request, asset)


def _answer(request: web.Request, asset: Asset) -> web.Response:
    tag = ETag(asset.tag)
    is_short = len(request.headers.get("If-None-Match", "")) <= _MAX_TAGS_CHARS
    if is_short and any(known.value in (asset.tag, "*") for known in request.if_none_match or ()):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        response = web.Response(
            body=asset.content, content_type=asset.type, charset="utf-8", headers=_HEADERS
        )
    response.etag = tag
    return response
