"""GeoJSON (RFC 7946): one collection, each feature naming its layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.durable import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.geofiles.layers import Layer


def write_geojson(path: Path, layers: list[Layer]) -> None:
    """Write the layers, one feature a line."""
    features = [
        msgspec.json.encode(
            {
                "type": "Feature",
                "geometry": feature.geometry.geojson(),
                "properties": {"layer": layer.name, **feature.properties},
            }
        )
        for layer in layers
        for feature in layer.features
    ]
    write_atomically(path, b'{"type":"FeatureCollection","features":[\n' + b",\n".join(features) + b"\n]}\n")
