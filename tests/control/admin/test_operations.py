"""The parts of operations; the document as a whole is held to what is served in test_openapi.py."""

from __future__ import annotations

from proxy.control.admin.operations import answer, header, json_of, link, operation, read


def test_an_operation_has_the_errors_that_all_have_and_its_own():
    made = operation("x", "keys", "About.", {"201": answer("Made.", json_of("Key"))}, ["409"], "KeySettings")
    assert list(made["responses"]) == ["201", "400", "401", "403", "409", "500"]
    assert made["requestBody"]["content"] == json_of("KeySettings")
    shown = read("y", "keys", "About.", "Key", errors=["404"], parameters=[{"name": "id"}], security=[])
    assert shown["responses"]["200"] == {"description": "About.", "content": json_of("Key")}
    assert (shown["parameters"], shown["security"], "requestBody" in shown) == ([{"name": "id"}], [], False)


def test_links_and_headers():
    assert link("showKey", "id", "$x") == {"operationId": "showKey", "parameters": {"id": "$x"}}
    assert header("Seconds.", "integer")["schema"] == {"type": "integer"}
