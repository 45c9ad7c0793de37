"""Embedding many sources into a store of Parquet files, on one machine or many, and resuming after any kill."""

from __future__ import annotations

from overflight.station.bulk.run import BulkOptions, embed_sources
from overflight.station.bulk.store import BulkStore

__all__ = ["BulkOptions", "BulkStore", "embed_sources"]
