"""Sources: recordings, stills, mosaics, cameras and streams, each read as frames with an honest time of capture."""

from __future__ import annotations

from overflight.runtime.sources.source import Source, open_source

__all__ = ["Source", "open_source"]
