"""A flight on a map: its observations, track and events in the files that other programs open."""

from __future__ import annotations

from overflight.runtime.geofiles.export import FORMATS, export_flight

__all__ = ["FORMATS", "export_flight"]
