"""The published JSON schemas of what the station writes, made from the records themselves."""

from __future__ import annotations

from importlib import import_module, resources
from typing import Any

import msgspec

# The name of each schema, and the record that it describes.
RECORDS = {
    "claim": "overflight.station.claims.verify.Verdict",
    "changes": "overflight.station.changes.record.Changes",
    "series": "overflight.station.series.record.Series",
    "description": "overflight.station.describe.record.Description",
}


def schema_of(name: str) -> bytes:
    """Make a schema (JSON Schema 2020-12) from its record."""
    module, _, record = RECORDS[name].rpartition(".")
    made: dict[str, Any] = msgspec.json.schema(getattr(import_module(module), record))
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"Overflight {name}"}
    return msgspec.json.format(msgspec.json.encode(head | made, order="sorted"), indent=2) + b"\n"


def published(name: str) -> bytes:
    """Return the schema that comes with the package."""
    return (resources.files("overflight.station") / "schemas" / f"{name}.schema.json").read_bytes()
