"""Encoding: texts become unit embeddings through a bundle's text tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.tokenise import Tokeniser
from overflight.runtime.engines.ort import load_library
from overflight.runtime.errors import BundleError, EngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

    Progress = Callable[[int, int], None]  # texts done, texts in all

TOWER = "text.onnx"
_BATCH = 16  # beyond it a longer batch gains nothing on a CPU, and the bar moves seldom


class TextEncoder:
    """A bundle's text tower on ONNX Runtime's CPU provider. Close it, or use it as a context manager."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the tower. Raises MissingError without onnxruntime, BundleError for a torn or foreign tower."""
        onnxruntime = load_library()
        names = [name for name in bundle.manifest.files if name.startswith((TOWER, "tokenizer/"))]
        for name in {TOWER, *names}:
            bundle.file(name)
        self.bundle = bundle
        self.tokeniser = Tokeniser.read(bundle.directory / "tokenizer", bundle.manifest.tokenising)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        path = bundle.directory / TOWER
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class
            raise BundleError(f"{path}: ONNX Runtime cannot load it ({error}); export the checkpoint again") from error

    def __enter__(self) -> TextEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float32]:
        """Embed texts: unit vectors float32 ``[N, D]``. Raises UsageError for a text longer than the context."""
        return self.encode_ids([self.ids(text) for text in texts], progress)

    def ids(self, text: str) -> tuple[int, ...]:
        """Tokenise one text. Raises UsageError where it is longer than the context: it is never cut in silence."""
        tokens = self.tokeniser.split(text)
        if tokens.length > self.tokeniser.context:
            raise UsageError(
                f"{text!r} needs {tokens.length} tokens, the text tower takes {self.tokeniser.context}; shorten it"
            )
        return tokens.ids

    def encode_ids(self, ids: Sequence[tuple[int, ...]], progress: Progress | None = None) -> NDArray[np.float32]:
        """Embed token ids, each distinct row once: unit vectors float32 ``[N, D]``."""
        distinct = list(dict.fromkeys(ids))
        rows = np.array(distinct, dtype=np.int64).reshape(len(distinct), self.tokeniser.context)
        vectors = np.empty((len(distinct), self.bundle.manifest.width), dtype=np.float32)
        for start in range(0, len(rows), _BATCH):
            vectors[start : start + _BATCH] = self._run(rows[start : start + _BATCH])
            if progress is not None:
                progress(min(start + _BATCH, len(rows)), len(rows))
        place = {row: index for index, row in enumerate(distinct)}
        return vectors[[place[row] for row in ids]]

    def close(self) -> None:
        """Free the tower; safe to call twice."""
        self._session = None

    def _run(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._session is None:
            raise EngineError(f"{self.bundle.directory / TOWER}: the text tower was closed; open it again")
        (vectors,) = self._session.run(["embeddings"], {"tokens": rows})
        expected = (len(rows), self.bundle.manifest.width)
        if vectors.shape != expected:
            raise EngineError(f"{TOWER}: answered {vectors.shape}, expected {expected}; export the checkpoint again")
        if not np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3):
            raise EngineError(f"{TOWER}: answered vectors that are not of unit length; export the checkpoint again")
        return np.asarray(vectors, dtype=np.float32)
