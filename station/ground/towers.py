"""A bundle's image engine for pictures that no flight holds."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.overflight import embed
from overflight.runtime.store import default_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from overflight.station.ground.tiles import Embed


@contextmanager
def image_tower(bundle: Bundle) -> Iterator[Embed]:
    """Yield what turns RGB pictures into unit embeddings ``[N, D]`` with the engine that this device would use."""
    engine = default_engine(bundle)
    try:

        def run(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
            return embed(engine, bundle, pictures)

        yield run
    finally:
        engine.close()


def open_bundle(path: Path | None) -> Bundle:
    """Open a bundle, the default model's where none is named."""
    return Bundle.open(path or default_bundle())
