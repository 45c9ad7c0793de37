"""Engines: one image tower made runnable, by whichever library is fastest and true on this device."""

from __future__ import annotations

from overflight.runtime.engines.engine import Engine, EngineInfo, Precision, Target
from overflight.runtime.engines.target import (
    PRECISIONS,
    REFERENCE,
    TARGETS,
    device_name,
    open_engine,
    open_reference,
    versions,
)

__all__ = [
    "PRECISIONS",
    "REFERENCE",
    "TARGETS",
    "Engine",
    "EngineInfo",
    "Precision",
    "Target",
    "device_name",
    "open_engine",
    "open_reference",
    "versions",
]
