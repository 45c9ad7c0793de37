"""The independent answers that an export is held against: transformers where installed, else plain numpy in double.

Nothing here uses the description or the author of the graph: tensors are read by the names that transformers gives them
and computed the long way round, so that a mistake there cannot repeat itself here.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from overflight.export.describe import ClipSettings, SiglipSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.export.checkpoint import Checkpoint
    from overflight.export.describe import TextSettings, TowerSettings
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
        """Embed frames ``[N, S, S, 3]``; ``report`` is told the share that is done."""

    def embed_tokens(self, tokens: NDArray[np.int64], report: Report = quiet) -> Doubles:
        """Embed token ids ``[N, context]``; ``report`` is told the share that is done."""


def find_reference(checkpoint: Checkpoint, model: Model) -> Reference:
    """Return transformers where it can be imported, else numpy."""
    try:
        importlib.import_module("torch")
        importlib.import_module("transformers")
    except ImportError:
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
        pixels = np.ascontiguousarray(_normalise(frames, self._pixels).transpose(0, 3, 1, 2), dtype=np.float32)
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
            if self._clip:  # the halves have a projection_dim of their own, which the whole model does not heed
                config.projection_dim = whole.projection_dim
            tower = getattr(self._transformers, kind).from_pretrained(self._checkpoint.directory, config=config)
            tower = tower.float().eval()
        finally:
            logging.set_verbosity(before)
            logging.enable_progress_bar()
        with self._torch.no_grad():
            answer = tower(**{name: self._torch.from_numpy(value) for name, value in inputs.items()})
        embeddings = answer[0] if self._clip else answer.pooler_output
        return _unit(embeddings.double().numpy())


class NumpyReference:
    """The towers written out in double precision from the checkpoint's own tensors."""

    def __init__(self, checkpoint: Checkpoint, clip: bool, pixels: Pixels) -> None:
        self._checkpoint, self._clip, self._pixels = checkpoint, clip, pixels
        settings = checkpoint.settings(ClipSettings) if clip else checkpoint.settings(SiglipSettings)
        self._image, self._text = settings.vision_config, settings.text_config

    @property
    def name(self) -> str:
        """Numpy with its version."""
        return f"float64, numpy {np.__version__}"

    def embed_frames(self, frames: NDArray[np.uint8], report: Report = quiet) -> Doubles:
        """Embed frames ``[N, S, S, 3]``."""
        prefix, settings = "vision_model", self._image
        x = self._patches(_normalise(frames, self._pixels))
        if self._clip:
            first = np.broadcast_to(self._get(f"{prefix}.embeddings.class_embedding"), (len(x), 1, x.shape[2]))
            x = np.concatenate([first, x], axis=1)
        x = x + self._get(f"{prefix}.embeddings.position_embedding.weight")
        if self._clip:
            x = self._norm(f"{prefix}.pre_layrnorm", x, settings)
        x = self._layers(prefix, x, settings, report, causal=False)
        x = self._norm(f"{prefix}.post_layernorm", x, settings)
        if self._clip:
            return _unit(x[:, 0] @ self._get("visual_projection.weight").T)
        return _unit(self._probe(f"{prefix}.head", x, settings))

    def embed_tokens(self, tokens: NDArray[np.int64], report: Report = quiet) -> Doubles:
        """Embed token ids ``[N, context]``."""
        prefix, settings = "text_model", self._text
        table = self._checkpoint.weight(
            f"{prefix}.embeddings.token_embedding.weight", settings.vocab_size, settings.hidden_size
        )
        x = table.read()[tokens].astype(np.float64) + self._get(f"{prefix}.embeddings.position_embedding.weight")
        x = self._layers(prefix, x, settings, report, causal=self._clip)
        x = self._norm(f"{prefix}.final_layer_norm", x, settings)
        if not self._clip:
            return _unit(self._linear(f"{prefix}.head", x[:, -1]))
        pooled = x[np.arange(len(x)), _end_positions(tokens, settings)]
        return _unit(pooled @ self._get("text_projection.weight").T)

    def _get(self, name: str) -> Doubles:
        return self._checkpoint.weight(name, *self._checkpoint.shape(name)).read().astype(np.float64)

    def _linear(self, name: str, x: Doubles) -> Doubles:
        y: Doubles = x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")
        return y

    def _norm(self, name: str, x: Doubles, settings: TowerSettings) -> Doubles:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + settings.layer_norm_eps)
        normed: Doubles = centred / deviation * self._get(f"{name}.weight") + self._get(f"{name}.bias")
        return normed

    def _patches(self, pixels: Doubles) -> Doubles:
        """The convolution whose stride is its size, one patch after the other."""
        name, patch = "vision_model.embeddings.patch_embedding", self._image.patch_size
        kernel = self._get(f"{name}.weight").reshape(self._image.hidden_size, -1)
        across = range(0, pixels.shape[1] - patch + 1, patch)
        pieces = [pixels[:, y : y + patch, x : x + patch].transpose(0, 3, 1, 2) for y in across for x in across]
        flat = np.stack([piece.reshape(len(pixels), -1) for piece in pieces], axis=1)
        product: Doubles = flat @ kernel.T
        return product if self._clip else product + self._get(f"{name}.bias")

    def _layers(self, prefix: str, x: Doubles, settings: TowerSettings, report: Report, *, causal: bool) -> Doubles:
        for number in range(settings.num_hidden_layers):
            name = f"{prefix}.encoder.layers.{number}"
            y = self._norm(f"{name}.layer_norm1", x, settings)
            query, key, value = (self._linear(f"{name}.self_attn.{part}_proj", y) for part in "qkv")
            mixed = _attend(query, key, value, settings.num_attention_heads, causal=causal)
            x = x + self._linear(f"{name}.self_attn.out_proj", mixed)
            x = x + self._mlp(f"{name}.mlp", self._norm(f"{name}.layer_norm2", x, settings), settings)
            report((number + 1) / settings.num_hidden_layers)
        return x

    def _mlp(self, name: str, x: Doubles, settings: TowerSettings) -> Doubles:
        return self._linear(f"{name}.fc2", _ACTIVATE[settings.hidden_act](self._linear(f"{name}.fc1", x)))

    def _probe(self, name: str, x: Doubles, settings: TowerSettings) -> Doubles:
        weights = np.split(self._get(f"{name}.attention.in_proj_weight"), 3)
        biases = np.split(self._get(f"{name}.attention.in_proj_bias"), 3)
        probe = np.broadcast_to(self._get(f"{name}.probe"), (len(x), 1, x.shape[2]))
        query, key, value = (
            source @ weight.T + bias for source, weight, bias in zip((probe, x, x), weights, biases, strict=True)
        )
        mixed = _attend(query, key, value, settings.num_attention_heads, causal=False)
        y = self._linear(f"{name}.attention.out_proj", mixed)
        y = y + self._mlp(f"{name}.mlp", self._norm(f"{name}.layernorm", y, settings), settings)
        pooled: Doubles = y[:, 0]
        return pooled


def _attend(query: Doubles, key: Doubles, value: Doubles, heads: int, *, causal: bool) -> Doubles:
    """softmax(Q·Kᵀ / √d)·V per head, of Vaswani et al., "Attention Is All You Need", 2017."""
    depth = query.shape[2] // heads
    mixed = np.empty_like(query)
    for head in range(heads):
        part = slice(head * depth, (head + 1) * depth)
        scores = query[..., part] @ key[..., part].transpose(0, 2, 1) / math.sqrt(depth)
        if causal:
            scores = np.where(np.tri(scores.shape[1], dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed[..., part] = shares / shares.sum(axis=-1, keepdims=True) @ value[..., part]
    return mixed


def _end_positions(tokens: NDArray[np.int64], settings: TextSettings) -> NDArray[np.intp]:
    end = getattr(settings, "eos_token_id", 2)
    positions: NDArray[np.intp] = np.argmax(tokens if end == 2 else tokens == end, axis=1)
    return positions


def _gelu(x: Doubles) -> Doubles:
    erf: Doubles = np.asarray(np.frompyfunc(math.erf, 1, 1)(x / math.sqrt(2)), dtype=np.float64)
    y: Doubles = x * 0.5 * (1 + erf)
    return y


def _gelu_tanh(x: Doubles) -> Doubles:
    y: Doubles = x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return y


def _quick_gelu(x: Doubles) -> Doubles:
    y: Doubles = x / (1 + np.exp(-1.702 * x))
    return y


# Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, by the names that transformers gives them.
_ACTIVATE: dict[str, Callable[[Doubles], Doubles]] = {
    "gelu": _gelu,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "quick_gelu": _quick_gelu,
}


def _normalise(frames: NDArray[np.uint8], pixels: Pixels) -> Doubles:
    values: Doubles = (frames * np.float64(pixels.rescale) - np.asarray(pixels.mean)) / np.asarray(pixels.std)
    return values


def _unit(x: Doubles) -> Doubles:
    length: Doubles = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / length
