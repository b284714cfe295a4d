"""The parts that operations of the OpenAPI document are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.control.admin.schemas import Schema, ref

JSON = "application/json"


def json_of(schema: str) -> Schema:
    return {JSON: {"schema": ref(schema)}}


def answer(about: str, content: Schema, **more: Any) -> Schema:
    return {"description": about, "content": content, **more}


def header(about: str, type: str = "string") -> Schema:
    return {"description": about, "required": True, "schema": {"type": type}}


def operation(
    id: str,
    tag: str,
    about: str,
    answers: dict[str, Schema],
    errors: Iterable[str] = (),
    body: str = "",
    parameters: Iterable[Schema] = (),
    **more: Any,
) -> Schema:
    """One method of one path.

    :param errors: the statuses of errors beside those that every operation may have.
    :param body: the schema of what is sent; "" for nothing.
    """
    found: Schema = {"operationId": id, "tags": [tag], "summary": about}
    if parameters:
        found["parameters"] = list(parameters)
    if body:
        found["requestBody"] = {"required": True, "content": json_of(body)}
    statuses = sorted({*errors, "400", "401", "403", "500"})
    found["responses"] = answers | {
        status: {"$ref": f"#/components/responses/Error{status}"} for status in statuses
    }
    return found | more


def read(id: str, tag: str, about: str, schema: str, **more: Any) -> Schema:
    return operation(id, tag, about, {"200": answer(about, json_of(schema))}, **more)


def link(operation: str, parameter: str, value: str) -> Schema:
    return {"operationId": operation, "parameters": {parameter: value}}
