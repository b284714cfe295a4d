"""Flask: ``get_json`` plain and forced, and its form; under Werkzeug's server, and at a second port wsgiref.

A WSGI server makes one name of ``-`` and ``_`` in the names of headers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from flask import Flask, Response, jsonify, request
from reading import evil_in, reading
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler as WerkzeugHandler
from werkzeug.serving import make_server as make_werkzeug_server

READINGS: list[dict[str, Any]] = []
app = Flask(__name__)


def tried(how: str, read: Callable[[], Any]) -> dict[str, Any] | None:
    try:
        return reading(how, read(), request.args)
    except (HTTPException, ValueError, LookupError, RecursionError):
        return None


@app.get("/readings")
def readings() -> Response:
    told = READINGS.copy()
    READINGS.clear()
    return jsonify(told)


@app.post("/<path:rest>")
def chat(rest: str) -> tuple[Response, int]:
    evil = evil_in((name, str(value)) for name, value in request.environ.items() if name.startswith("HTTP_"))
    found = [
        tried("get_json(force=True)", lambda: request.get_json(force=True)),
        tried("get_json()", request.get_json), tried("form", lambda: request.form.to_dict() or None),
    ]  # fmt: skip
    told = [{**one, "evil": evil} for one in found if one is not None]
    READINGS.extend(told)
    return jsonify({}), 200 if told else 400


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


class QuietWerkzeug(WerkzeugHandler):
    def log(self, *args: object) -> None:
        pass


port = int(sys.argv[1])
plain = make_server("127.0.0.1", int(sys.argv[2]), app, handler_class=Quiet)
threading.Thread(target=plain.serve_forever, daemon=True).start()
make_werkzeug_server("127.0.0.1", port, app, threaded=True, request_handler=QuietWerkzeug).serve_forever()
