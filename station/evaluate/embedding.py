"""Embeddings of pictures and texts by a bundle, kept on disk so that a second task need not make them again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from overflight.export.encode import TextEncoder
from overflight.runtime.resize import Resizer
from overflight.runtime.sources.image import read_image
from overflight.runtime.store import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.progress import Report

    Change = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

BATCH = 8


class Embeddings:
    """Embeds with one engine; ``cache`` is a folder, or None to keep nothing."""

    def __init__(self, bundle: Bundle, cache: Path | None, report: Report, threads: int = 0) -> None:
        self.bundle = bundle
        self._engine = choose(bundle, threads=threads).engine
        self._encoder: TextEncoder | None = None
        self._cache = cache
        self._report = report

    def __enter__(self) -> Embeddings:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()
        if self._encoder is not None:
            self._encoder.close()

    @property
    def engine(self) -> str:
        """The engine's name."""
        return f"{self._engine.info.target} {self._engine.info.precision}"

    def pictures(
        self, paths: Sequence[Path], change: Change | None = None, name: str = "pictures"
    ) -> NDArray[np.float32]:
        """Embed pictures, each altered by ``change`` (RGB in and out), into unit vectors ``[N, D]``."""
        kept = self._kept(paths, name)
        if kept is not None and kept.is_file():
            found: NDArray[np.float32] = np.load(kept)
            return found
        resizer = Resizer(self.bundle.manifest.resize)
        frames = np.empty((BATCH, resizer.side, resizer.side, 3), np.uint8)
        vectors = np.empty((len(paths), self._engine.width), np.float32)
        for start in range(0, len(paths), BATCH):
            part = paths[start : start + BATCH]
            for row, path in enumerate(part):
                pixels = read_image(path).pixels[:, :, ::-1]
                shown = np.ascontiguousarray(pixels if change is None else change(np.ascontiguousarray(pixels)))
                resizer.resize(shown, frames[row])
            vectors[start : start + len(part)] = self._engine.embed(frames[: len(part)])
            self._report(name, (start + len(part)) / len(paths))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, vectors)
        return vectors

    def frames(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed frames that are resized already, ``[N, S, S, 3]``."""
        parts = [np.array(self._engine.embed(frames[at : at + BATCH])) for at in range(0, len(frames), BATCH)]
        return np.concatenate(parts)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts into unit vectors ``[N, D]``. Raises UsageError for a text longer than the context."""
        self._encoder = self._encoder or TextEncoder(self.bundle)
        return self._encoder.encode(texts)

    def classes(self, names: Sequence[str], forms: Sequence[str]) -> NDArray[np.float32]:
        """Embed class names: the normalised mean of the normalised prompts of each, ``[K, D]``."""
        prompts = [form.replace("{}", name) for name in names for form in forms]
        mean = self.texts(prompts).reshape(len(names), len(forms), -1).mean(axis=1)
        unit: NDArray[np.float32] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def _kept(self, paths: Sequence[Path], name: str) -> Path | None:
        if self._cache is None:
            return None
        digest = hashlib.sha256(f"{self._engine.info.sha256} {self.bundle.sha256} {name}".encode())
        for path in paths:
            status = path.stat()
            digest.update(f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n".encode())
        return self._cache / f"{digest.hexdigest()[:32]}.npy"
