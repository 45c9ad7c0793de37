"""An engine that remembers on disk what it has embedded, so that a killed command need not compute it again."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.engines import Engine, EngineInfo
    from overflight.runtime.overflight import Overflight

_KEY_BYTES = 16


class RememberedEngine:
    """Answers from a file where the same resized frame was embedded before, and from the engine otherwise.

    The file is a row of records: the hash of a frame's pixels, and its embedding in float32, so that the answers are
    the engine's own to the last bit. A record that a power cut left half is dropped.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._salt = engine.info.sha256.encode()[:64]
        self._known = _read(path, engine.width)
        self.remembered = 0  # frames and tiles that were not embedded again
        self._file = path.open("ab")
        self._file.truncate(len(self._known) * (_KEY_BYTES + 4 * engine.width))

    @property
    def info(self) -> EngineInfo:
        """Which engine answers."""
        return self._engine.info

    @property
    def side(self) -> int:
        """The side of its square input, in pixels."""
        return self._engine.side

    @property
    def width(self) -> int:
        """The length of an embedding."""
        return self._engine.width

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a batch; it is computed unless every frame of it is known."""
        keys = [hashlib.blake2b(frame.tobytes(), digest_size=_KEY_BYTES, key=self._salt).digest() for frame in frames]
        if all(key in self._known for key in keys):
            self.remembered += len(keys)
            return np.stack([self._known[key] for key in keys])
        vectors = self._engine.embed(frames)
        for key, vector in zip(keys, vectors, strict=True):
            if key not in self._known:
                self._known[key] = vector.astype(np.float32, copy=True)
                self._file.write(key + self._known[key].tobytes())
        self._file.flush()
        return vectors

    def close(self) -> None:
        """Close the file; the engine belongs to the caller."""
        self._file.close()


@contextmanager
def remembering(overflight: Overflight, path: Path) -> Iterator[None]:
    """Let an engine remember in a file, which is removed when the block ends without an error."""
    engine = overflight.engine
    kept = RememberedEngine(engine, path)
    overflight.engine = overflight.observer.engine = kept
    try:
        yield
    finally:
        overflight.engine = overflight.observer.engine = engine
        kept.close()
    path.unlink(missing_ok=True)


def _read(path: Path, width: int) -> dict[bytes, NDArray[np.float32]]:
    size = _KEY_BYTES + 4 * width
    content = path.read_bytes() if path.is_file() else b""
    records = [content[start : start + size] for start in range(0, len(content) - size + 1, size)]
    return {record[:_KEY_BYTES]: np.frombuffer(record[_KEY_BYTES:], np.float32) for record in records}
