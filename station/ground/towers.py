"""A bundle's image engine for pictures that no flight holds."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.resize import Resizer
from overflight.runtime.store import default_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.station.ground.tiles import Embed


@contextmanager
def image_tower(bundle: Bundle) -> Iterator[Embed]:
    """Yield what turns RGB pictures into unit embeddings ``[N, D]`` with the engine that this device would use."""
    engine = default_engine(bundle)
    try:
        resizer = Resizer(bundle.manifest.resize)  # one for all: tiles of one size share its filters
        batch = np.empty((1, resizer.side, resizer.side, 3), np.uint8)

        def run(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            vectors = np.empty((len(pictures), engine.width), np.float32)
            for row, picture in zip(vectors, pictures, strict=True):
                resizer.resize(picture, batch[0])
                row[:] = engine.embed(batch)[0]
            return vectors

        yield run
    finally:
        engine.close()


def open_bundle(path: Path | None) -> Bundle:
    """Open a bundle, the default model's where none is named."""
    return Bundle.open(path or default_bundle())
