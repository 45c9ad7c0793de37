"""Endpoints: one table from which requests are decoded, answers encoded and the OpenAPI description made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from overflight.runtime.errors import MissingError, OverflightError, UsageError
from overflight.station.serve.shapes import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from overflight.station.serve.desk import Desk

MOST_JSON_BYTES = 2_000_000
MOST_REVIEW_BYTES = 50_000_000


class RefusedError(OverflightError):
    """A request that is refused with a status of its own."""

    def __init__(self, status: int, code: str, error: str) -> None:
        super().__init__(error)
        self.status, self.code = status, code


class NotKeptError(RefusedError):
    """A picture or a map tile that was not kept; endpoints of pictures answer 204, as browsers log a 404."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(404, code, error)


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No query parameters."""


@dataclass(frozen=True)
class File:
    """An answer that is not JSON; ``name`` makes it a download, ``tag`` lets a browser keep it."""

    content: bytes
    media: str
    name: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Call:
    """A decoded request: parameters of the path, the query, the body (a struct, or raw bytes)."""

    path: Mapping[str, str]
    query: Any
    body: Any


@dataclass(frozen=True)
class Endpoint:
    """One endpoint. ``body`` is a struct, ``Path`` or ``bytes`` for a raw body, or None; ``answer`` a type or ``File``.

    A raw body is kept in a file where it is a ``Path``, else in memory. ``empty`` answers NotKeptError with 204.
    """

    method: Literal["GET", "POST"]
    path: str
    run: Callable[[Desk, Call], Any]
    summary: str
    answer: Any
    body: Any = None
    query: type[msgspec.Struct] = NoQuery
    media: tuple[str, ...] = ("application/json",)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    empty: bool = False

    def decode(self, path: Mapping[str, str], query: Mapping[str, str], body: bytes | Path) -> Call:
        """Decode a request. Raises RefusedError."""
        for name, value in path.items():
            if self.parameters.get(name, {}).get("type") == "integer" and not (value.isdecimal() and len(value) < 16):
                raise RefusedError(404, "unknown", f"{name} {value[:40]!r}: expected a number")
        try:
            asked = msgspec.convert(dict(query), self.query, strict=False)
            if isinstance(body, Path) or self.body is bytes:
                return Call(path, asked, body)
            decoded = None if self.body is None else msgspec.json.decode(body or b"{}", type=self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(
                422, "invalid", f"the request is not as expected: {' '.join(str(error).split())}"
            ) from error
        return Call(path, asked, decoded)


def refuse(error: Exception) -> tuple[int, Problem]:
    """Return the status and the answer for an error of ours."""
    text = " ".join(str(error).split())
    match error:
        case RefusedError():
            return error.status, Problem(text, error.code)
        case UsageError():
            return 400, Problem(text, "usage")
        case MissingError():
            return 503, Problem(text, "missing")
        case _:
            return 409, Problem(text, "failed")


def describe(endpoints: tuple[Endpoint, ...], version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description."""
    kinds = [one.body for one in endpoints if one.body not in {None, bytes, Path}]
    kinds += [one.answer for one in endpoints if one.answer is not File]
    schemas, components = msgspec.json.schema_components(
        [*kinds, *(one.query for one in endpoints), Problem], ref_template="#/components/schemas/{name}"
    )
    known = dict(zip([*map(repr, kinds), *(repr(one.query) for one in endpoints), "Problem"], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, known, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Overflight field station", "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(one: Endpoint, known: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    problem = {"content": {"application/json": {"schema": known["Problem"]}}}
    refused = {"400": "not possible", "401": "the token is missing", "403": "not allowed", "404": "unknown"}
    refused |= {"409": "failed", "413": "too large", "422": "not as expected", "503": "a part is missing"}
    good: dict[str, Any] = {"description": "done"}
    binary: dict[str, Any] = {"type": "string", "format": "binary"}
    good["content"] = {
        media: {"schema": known[repr(one.answer)] if one.answer is not File else {} if "json" in media else binary}
        for media in one.media
    }
    operation: dict[str, Any] = {
        "summary": one.summary,
        "operationId": f"{one.method.lower()}_{one.run.__name__}",
        "parameters": [*_path_parameters(one), *_query_parameters(one, known, components)],
        "responses": {"200": good} | {code: {"description": text, **problem} for code, text in refused.items()},
    }
    if one.empty:
        operation["responses"]["204"] = {"description": "no picture was kept"}
    if one.body in {bytes, Path}:
        binary = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": binary}}
    elif one.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": known[repr(one.body)]}},
        }
    return operation


def _path_parameters(one: Endpoint) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    return [
        {"name": name, "in": "path", "required": True, "schema": one.parameters.get(name, {"type": "string"})}
        for name in names
    ]


def _query_parameters(one: Endpoint, known: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    schema = known[repr(one.query)]
    schema = components[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    required = set(schema.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in required, "schema": kind}
        for name, kind in schema.get("properties", {}).items()
    ]
