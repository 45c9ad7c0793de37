"""transformers' SigLIP and CLIP written out in double precision from the checkpoint's own tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.export.layouts.transformers_clip import END_IS_HIGHEST, read_clip_halves
from overflight.export.layouts.transformers_siglip import read_siglip_halves
from overflight.export.reference import quiet
from overflight.export.reference_maths import ACTIVATE, attend, cut_patches, normalise, normed, unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.export.checkpoint import Checkpoint
    from overflight.export.layouts.transformers_tensors import TowerSettings
    from overflight.export.reference import Report
    from overflight.export.tower import Pixels

    Doubles = NDArray[np.float64]


class NumpyReference:
    """Both towers, one tensor in memory at a time."""

    def __init__(self, checkpoint: Checkpoint, clip: bool, pixels: Pixels) -> None:
        self._checkpoint, self._clip, self._pixels = checkpoint, clip, pixels
        halves: Any = read_clip_halves(checkpoint) if clip else read_siglip_halves(checkpoint)
        self._image, self._text = halves

    @property
    def name(self) -> str:
        """Numpy with its version."""
        return f"float64, numpy {np.__version__}"

    def embed_frames(self, frames: NDArray[np.uint8], report: Report = quiet) -> Doubles:
        """Embed frames ``[N, S, S, 3]``."""
        prefix, settings = "vision_model", self._image
        x = self._patches(normalise(frames, self._pixels))
        if self._clip:
            first = np.broadcast_to(self._get(f"{prefix}.embeddings.class_embedding"), (len(x), 1, x.shape[2]))
            x = np.concatenate([first, x], axis=1)
        x = x + self._get(f"{prefix}.embeddings.position_embedding.weight")
        if self._clip:
            x = self._norm(f"{prefix}.pre_layrnorm", x, settings)
        x = self._layers(prefix, x, settings, report, causal=False)
        x = self._norm(f"{prefix}.post_layernorm", x, settings)
        if self._clip:
            return unit(x[:, 0] @ self._get("visual_projection.weight").T)
        return unit(self._probe(f"{prefix}.head", x, settings))

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
            return unit(self._linear(f"{prefix}.head", x[:, -1]))
        end = getattr(settings, "eos_token_id", END_IS_HIGHEST)
        positions = np.argmax(tokens if end == END_IS_HIGHEST else tokens == end, axis=1)
        return unit(x[np.arange(len(x)), positions] @ self._get("text_projection.weight").T)

    def _get(self, name: str) -> Doubles:
        return self._checkpoint.weight(name, *self._checkpoint.shape(name)).read().astype(np.float64)

    def _linear(self, name: str, x: Doubles) -> Doubles:
        y: Doubles = x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")
        return y

    def _norm(self, name: str, x: Doubles, settings: TowerSettings) -> Doubles:
        return normed(x, self._get(f"{name}.weight"), self._get(f"{name}.bias"), settings.layer_norm_eps)

    def _patches(self, pixels: Doubles) -> Doubles:
        name = "vision_model.embeddings.patch_embedding"
        kernel = self._get(f"{name}.weight").reshape(self._image.hidden_size, -1)
        product: Doubles = cut_patches(pixels, self._image.patch_size) @ kernel.T
        return product if self._clip else product + self._get(f"{name}.bias")

    def _layers(self, prefix: str, x: Doubles, settings: TowerSettings, report: Report, *, causal: bool) -> Doubles:
        for number in range(settings.num_hidden_layers):
            name = f"{prefix}.encoder.layers.{number}"
            y = self._norm(f"{name}.layer_norm1", x, settings)
            query, key, value = (self._linear(f"{name}.self_attn.{part}_proj", y) for part in "qkv")
            mixed = attend(query, key, value, settings.num_attention_heads, causal=causal)
            x = x + self._linear(f"{name}.self_attn.out_proj", mixed)
            x = x + self._mlp(f"{name}.mlp", self._norm(f"{name}.layer_norm2", x, settings), settings)
            report((number + 1) / settings.num_hidden_layers)
        return x

    def _mlp(self, name: str, x: Doubles, settings: TowerSettings) -> Doubles:
        return self._linear(f"{name}.fc2", ACTIVATE[settings.hidden_act](self._linear(f"{name}.fc1", x)))

    def _probe(self, name: str, x: Doubles, settings: TowerSettings) -> Doubles:
        weights = np.split(self._get(f"{name}.attention.in_proj_weight"), 3)
        biases = np.split(self._get(f"{name}.attention.in_proj_bias"), 3)
        probe = np.broadcast_to(self._get(f"{name}.probe"), (len(x), 1, x.shape[2]))
        query, key, value = (
            source @ weight.T + bias for source, weight, bias in zip((probe, x, x), weights, biases, strict=True)
        )
        mixed = attend(query, key, value, settings.num_attention_heads, causal=False)
        y = self._linear(f"{name}.attention.out_proj", mixed)
        y = y + self._mlp(f"{name}.mlp", self._norm(f"{name}.layernorm", y, settings), settings)
        pooled: Doubles = y[:, 0]
        return pooled
