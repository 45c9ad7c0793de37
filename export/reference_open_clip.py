"""OpenCLIP's towers written out in double precision from the checkpoint's own tensors: ViT, timm's SigLIP, ResNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.export.layouts.open_clip_settings import read_open_clip_settings
from overflight.export.reference import quiet
from overflight.export.reference_maths import ACTIVATE, attend, cut_patches, normalise, normed, unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.export.checkpoint import Checkpoint
    from overflight.export.reference import Report
    from overflight.export.tower import Pixels

    Doubles = NDArray[np.float64]

_TIMM_EPSILON = 1e-6


class OpenClipReference:
    """Both towers, one tensor in memory at a time."""

    def __init__(self, checkpoint: Checkpoint, pixels: Pixels) -> None:
        self._checkpoint, self._pixels = checkpoint, pixels
        self._known = read_open_clip_settings(checkpoint)

    @property
    def name(self) -> str:
        """Numpy with its version."""
        return f"float64, numpy {np.__version__}"

    def embed_frames(self, frames: NDArray[np.uint8], report: Report = quiet) -> Doubles:
        """Embed frames ``[N, S, S, 3]``."""
        x = normalise(frames, self._pixels)
        if self._known.vision.timm_model_name is not None:
            return unit(_Timm(self._get, self._known.vision.timm_model_name).embed(x, report))
        if isinstance(self._known.vision.layers, tuple):
            return unit(_ResNet(self._get, self._known.vision).embed(x, report))
        return unit(self._vit(x, report))

    def _vit(self, x: Doubles, report: Report) -> Doubles:
        settings, epsilon = self._known.vision, _epsilon(self._known.vision.norm_kwargs)
        kernel = self._get("visual.conv1.weight").reshape(settings.width, -1)
        x = cut_patches(x, settings.patch_size) @ kernel.T
        first = np.broadcast_to(self._get("visual.class_embedding"), (len(x), 1, settings.width))
        x = np.concatenate([first, x], axis=1) + self._get("visual.positional_embedding")
        if not settings.no_ln_pre:
            x = self._norm("visual.ln_pre", x, epsilon)
        heads = settings.width // settings.head_width
        x = self._blocks("visual.transformer", x, heads, epsilon, self._activate(settings.act_kwargs), report)
        average = settings.pool_type == "avg"
        if average and settings.final_ln_after_pool:
            pooled = self._norm("visual.ln_post", x[:, 1:].mean(axis=1), epsilon)
        else:
            x = self._norm("visual.ln_post", x, epsilon)
            pooled = x[:, 1:].mean(axis=1) if average else x[:, 0]
        embedded: Doubles = pooled @ self._get("visual.proj")
        return embedded

    def embed_tokens(self, tokens: NDArray[np.int64], report: Report = quiet) -> Doubles:
        """Embed token ids ``[N, context]``."""
        settings, epsilon = self._known.text, _epsilon(self._known.text.norm_kwargs)
        prefix = "text." if self._checkpoint.has("text.token_embedding.weight") else ""
        positions = self._get(f"{prefix}positional_embedding")
        if self._checkpoint.has(f"{prefix}positional_embedding_res"):  # Long-CLIP: the first 20 stay
            positions[20:] = self._get(f"{prefix}positional_embedding_res")[20:]
        table = f"{prefix}token_embedding.weight"
        x = self._checkpoint.weight(table, *self._checkpoint.shape(table)).read()[tokens].astype(np.float64) + positions
        activate, causal = self._activate(settings.act_kwargs), not settings.no_causal_mask
        x = self._blocks(f"{prefix}transformer", x, settings.heads, epsilon, activate, report, causal=causal)
        x = self._norm(f"{prefix}ln_final", x, epsilon)
        last = len(tokens[0]) - 1
        place = {
            "argmax": tokens.argmax(axis=1),
            "eos": (tokens == settings.eos_id).argmax(axis=1),
            "first": np.zeros(len(tokens), int),
            "last": np.full(len(tokens), last),
        }[settings.pool_type]
        pooled = x[np.arange(len(x)), place]
        if settings.proj_type == "none":
            return unit(pooled)
        if settings.proj_bias:
            return unit(self._linear(f"{prefix}text_projection", pooled))
        return unit(pooled @ self._get(f"{prefix}text_projection"))

    def _get(self, name: str) -> Doubles:
        return self._checkpoint.weight(name, *self._checkpoint.shape(name)).read().astype(np.float64)

    def _activate(self, options: dict[str, Any]) -> Callable[[Doubles], Doubles]:
        if self._known.model.quick_gelu:
            return ACTIVATE["quick_gelu"]
        return ACTIVATE["gelu_pytorch_tanh" if options.get("approximate") == "tanh" else "gelu"]

    def _linear(self, name: str, x: Doubles) -> Doubles:
        y: Doubles = x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")
        return y

    def _norm(self, name: str, x: Doubles, epsilon: float) -> Doubles:
        return normed(x, self._get(f"{name}.weight"), self._get(f"{name}.bias"), epsilon)

    def _blocks(
        self,
        prefix: str,
        x: Doubles,
        heads: int,
        epsilon: float,
        activate: Callable[[Doubles], Doubles],
        report: Report,
        *,
        causal: bool = False,
    ) -> Doubles:
        start = f"{prefix}.resblocks."
        count = len({name[len(start) :].split(".")[0] for name in self._checkpoint.names if name.startswith(start)})
        for number in range(count):
            name = f"{start}{number}"
            y = self._norm(f"{name}.ln_1", x, epsilon)
            y = y @ self._get(f"{name}.attn.in_proj_weight").T + self._get(f"{name}.attn.in_proj_bias")
            query, key, value = np.split(y, 3, axis=-1)
            mixed = self._linear(f"{name}.attn.out_proj", attend(query, key, value, heads, causal=causal))
            x = x + mixed * self._gamma(f"{name}.ls_1.gamma")
            y = activate(self._linear(f"{name}.mlp.c_fc", self._norm(f"{name}.ln_2", x, epsilon)))
            x = x + self._linear(f"{name}.mlp.c_proj", y) * self._gamma(f"{name}.ls_2.gamma")
            report((number + 1) / count)
        return x

    def _gamma(self, name: str) -> Doubles | float:
        return self._get(name) if self._checkpoint.has(name) else 1.0


class _Timm:
    """timm's SigLIP: no class token, fused query-key-value, a latent that attends to every patch."""

    def __init__(self, get: Callable[[str], Doubles], named: str) -> None:
        self._get: Callable[[str], Doubles] = lambda name: get(f"visual.trunk.{name}")
        exact = "patch16_siglip_512" not in named if "large" in named else "giantopt" not in named
        tanh = not exact or "patch32" in named or "so400m_patch16" in named
        self._activate = ACTIVATE["gelu_pytorch_tanh" if tanh else "gelu"]
        self._heads = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}[named.split("_")[1]]

    def embed(self, x: Doubles, report: Report) -> Doubles:
        kernel = self._get("patch_embed.proj.weight")
        width, patch = kernel.shape[0], kernel.shape[2]
        x = cut_patches(x, patch) @ kernel.reshape(width, -1).T + self._get("patch_embed.proj.bias")
        x = x + self._get("pos_embed")
        layers = {768: 12, 1024: 24, 1152: 27, 1536: 40}[width]
        for number in range(layers):
            name = f"blocks.{number}"
            query, key, value = np.split(self._linear(f"{name}.attn.qkv", self._norm(f"{name}.norm1", x)), 3, axis=-1)
            x = x + self._linear(f"{name}.attn.proj", attend(query, key, value, self._heads, causal=False))
            x = x + self._mlp(f"{name}.mlp", self._norm(f"{name}.norm2", x))
            report((number + 1) / layers)
        x = self._norm("norm", x)
        query = self._linear("attn_pool.q", np.broadcast_to(self._get("attn_pool.latent"), (len(x), 1, width)))
        key, value = np.split(self._linear("attn_pool.kv", x), 2, axis=-1)
        y = self._linear("attn_pool.proj", attend(query, key, value, self._heads, causal=False))
        y = y + self._mlp("attn_pool.mlp", self._norm("attn_pool.norm", y))
        pooled: Doubles = y[:, 0]
        return pooled

    def _linear(self, name: str, x: Doubles) -> Doubles:
        y: Doubles = x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")
        return y

    def _norm(self, name: str, x: Doubles) -> Doubles:
        return normed(x, self._get(f"{name}.weight"), self._get(f"{name}.bias"), _TIMM_EPSILON)

    def _mlp(self, name: str, x: Doubles) -> Doubles:
        return self._linear(f"{name}.fc2", self._activate(self._linear(f"{name}.fc1", x)))


class _ResNet:
    """CLIP's ModifiedResNet with its batch norms as they are trained, unfolded."""

    def __init__(self, get: Callable[[str], Doubles], settings: Any) -> None:
        self._get: Callable[[str], Doubles] = lambda name: get(f"visual.{name}")
        self._depths: tuple[int, ...] = settings.layers
        self._heads = settings.width * 32 // settings.head_width

    def embed(self, x: Doubles, report: Report) -> Doubles:
        x = x.transpose(0, 3, 1, 2)
        for number in (1, 2, 3):
            x = np.maximum(self._convolve(f"conv{number}", f"bn{number}", x, 2 if number == 1 else 1), 0)
        x = _average(x)
        for stage, depth in enumerate(self._depths, start=1):
            for number in range(depth):
                x = self._bottleneck(f"layer{stage}.{number}", x, halve=stage > 1 and number == 0)
            report(stage / len(self._depths))
        cells = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
        states = np.concatenate([cells.mean(axis=1, keepdims=True), cells], axis=1)
        states = states + self._get("attnpool.positional_embedding")
        query, key, value = (self._linear(f"attnpool.{part}_proj", states) for part in "qkv")
        mixed = attend(query, key, value, self._heads, causal=False)
        return self._linear("attnpool.c_proj", mixed[:, 0])

    def _bottleneck(self, name: str, x: Doubles, *, halve: bool) -> Doubles:
        y = np.maximum(self._convolve(f"{name}.conv1", f"{name}.bn1", x), 0)
        y = np.maximum(self._convolve(f"{name}.conv2", f"{name}.bn2", y), 0)
        y = self._convolve(f"{name}.conv3", f"{name}.bn3", _average(y) if halve else y)
        if halve or x.shape[1] != y.shape[1]:
            x = self._convolve(f"{name}.downsample.0", f"{name}.downsample.1", _average(x) if halve else x)
        result: Doubles = np.maximum(x + y, 0)
        return result

    def _convolve(self, name: str, norm: str, x: Doubles, stride: int = 1) -> Doubles:
        kernel = self._get(f"{name}.weight")
        margin = kernel.shape[2] // 2
        x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
        y = np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        scale, shift, mean, variance = (
            self._get(f"{norm}.{part}")[:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        result: Doubles = (y - mean) / np.sqrt(variance + 1e-5) * scale + shift
        return result

    def _linear(self, name: str, x: Doubles) -> Doubles:
        y: Doubles = x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")
        return y


def _average(x: Doubles) -> Doubles:
    """Average squares of two by two; a last odd row or column is left out, as torch does."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    pairs = x[:, :, :height, :width].reshape(*x.shape[:2], height // 2, 2, width // 2, 2)
    mean: Doubles = pairs.mean(axis=(3, 5))
    return mean


def _epsilon(options: dict[str, Any]) -> float:
    return float(options.get("eps", 1e-5))
