"""The independent answers that an export is compared with: transformers where installed, else plain numpy in double.

Nothing here uses the description or the author of the graph: tensors are read by the names that the publisher gives
them and computed the long way round, so that a mistake there cannot repeat itself here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from overflight.export.reference_maths import normalise, unit
from overflight.export.torchvision_operators import define_missing_operators

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.export.checkpoint import Checkpoint
    from overflight.export.tower import Model, Pixels

    Doubles = NDArray[np.float64]
    Report = Callable[[float], None]


def quiet(share: float) -> None:
    """Report progress to nobody."""


class Reference(Protocol):
    """Both towers as somebody else computes them; embeddings are float64 ``[N, D]`` of unit length."""

    @property
    def name(self) -> str:
        """What computes them, with its version."""

    def embed_frames(self, frames: NDArray[np.uint8], report: Report = quiet) -> Doubles:
        """Embed frames ``[N, S, S, 3]``; ``report`` receives the progress, 0 to 1."""

    def embed_tokens(self, tokens: NDArray[np.int64], report: Report = quiet) -> Doubles:
        """Embed token ids ``[N, context]``; ``report`` receives the progress, 0 to 1."""


def find_reference(checkpoint: Checkpoint, model: Model) -> Reference:
    """Return transformers where it can be imported and reads this layout, else numpy."""
    if checkpoint.layout == "open_clip":
        from overflight.export.reference_open_clip import OpenClipReference

        return OpenClipReference(checkpoint, model.image.pixels)
    try:
        if checkpoint.adapted or not checkpoint.source.is_dir():
            raise ImportError  # it would load the base alone, or another file of the directory
        importlib.import_module("torch")
        define_missing_operators()
        # Asking for a class loads its module, and with it a torchvision that may not fit torch.
        _ = importlib.import_module("transformers").SiglipVisionModel
    except (ImportError, RuntimeError):
        from overflight.export.reference_numpy import NumpyReference

        return NumpyReference(checkpoint, model.family == "clip", model.image.pixels)
    return TransformersReference(checkpoint, model.family == "clip", model.image.pixels)


class TransformersReference:
    """The reference implementation itself, one tower in memory at a time, in float32."""

    def __init__(self, checkpoint: Checkpoint, clip: bool, pixels: Pixels) -> None:
        self._transformers: Any = importlib.import_module("transformers")
        self._torch: Any = importlib.import_module("torch")
        self._checkpoint, self._clip, self._pixels = checkpoint, clip, pixels

    @property
    def name(self) -> str:
        """transformers and torch, with their versions."""
        return f"transformers {self._transformers.__version__}, torch {self._torch.__version__}"

    def embed_frames(self, frames: NDArray[np.uint8], report: Report = quiet) -> Doubles:
        """Embed frames ``[N, S, S, 3]``."""
        pixels = np.ascontiguousarray(normalise(frames, self._pixels).transpose(0, 3, 1, 2), dtype=np.float32)
        kind = "CLIPVisionModelWithProjection" if self._clip else "SiglipVisionModel"
        return self._run(kind, "vision_config", pixel_values=pixels)

    def embed_tokens(self, tokens: NDArray[np.int64], report: Report = quiet) -> Doubles:
        """Embed token ids ``[N, context]``."""
        kind = "CLIPTextModelWithProjection" if self._clip else "SiglipTextModel"
        return self._run(kind, "text_config", input_ids=tokens)

    def _run(self, kind: str, part: str, **inputs: NDArray[Any]) -> Doubles:
        logging = self._transformers.utils.logging
        before = logging.get_verbosity()
        logging.set_verbosity_error()  # it warns of the other tower's tensors, which are unused on purpose
        logging.disable_progress_bar()
        try:
            whole = self._transformers.AutoConfig.from_pretrained(self._checkpoint.directory)
            config = getattr(whole, part)
            if self._clip:  # the halves have a projection_dim of their own, which the whole model ignores
                config.projection_dim = whole.projection_dim
            tower = getattr(self._transformers, kind).from_pretrained(self._checkpoint.directory, config=config)
            tower = tower.float().eval()
        finally:
            logging.set_verbosity(before)
            logging.enable_progress_bar()
        with self._torch.no_grad():
            answer = tower(**{name: self._torch.from_numpy(value) for name, value in inputs.items()})
        embeddings = answer[0] if self._clip else answer.pooler_output
        return unit(embeddings.double().numpy())
