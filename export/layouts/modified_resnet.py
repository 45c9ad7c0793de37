"""CLIP's ModifiedResNet in OpenCLIP's layout (RN50 and its kin), its batch norms folded into the convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.export.tower import Attention, Bottleneck, Convolution, Linear, Pixels, ResNetTower, Weight
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.export.checkpoint import Checkpoint
    from overflight.export.layouts.open_clip_settings import VisionSettings

_EPSILON = 1e-5  # torch's own, in every batch norm
_EXPANSION = 4
_REDUCTION = 32  # pixels per cell of the last stage


def describe_resnet(
    checkpoint: Checkpoint, where: str, settings: VisionSettings, pixels: Pixels, width: int
) -> ResNetTower:
    """Describe the image half. Raises UsageError where settings and tensors do not agree."""
    side = settings.image_size
    if not isinstance(side, int) or side < _REDUCTION or settings.width < 2 or settings.head_width < 1:
        raise UsageError(f"{where}: image_size {side} and width {settings.width} do not make a ResNet")
    assert isinstance(settings.layers, tuple)
    planes, features = settings.width, settings.width * _REDUCTION
    half = planes // 2
    stem = (
        _convolution(checkpoint, "visual.conv1", "visual.bn1", half, 3, 3, stride=2),
        _convolution(checkpoint, "visual.conv2", "visual.bn2", half, half, 3),
        _convolution(checkpoint, "visual.conv3", "visual.bn3", planes, half, 3),
    )
    blocks, inputs = [], planes
    for stage, depth in enumerate(settings.layers):
        outputs = planes << stage
        for number in range(depth):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(_bottleneck(checkpoint, f"visual.layer{stage + 1}.{number}", inputs, outputs, stride))
            inputs = outputs * _EXPANSION
    cells = (side // _REDUCTION) ** 2
    query, key, value = (_linear(checkpoint, f"visual.attnpool.{part}_proj", features, features) for part in "qkv")
    heads = features // settings.head_width
    output = _linear(checkpoint, "visual.attnpool.c_proj", features, width)
    return ResNetTower(
        side=side,
        pixels=pixels,
        stem=stem,
        blocks=tuple(blocks),
        positions=checkpoint.weight("visual.attnpool.positional_embedding", cells + 1, features),
        attention=Attention(query, key, value, output, heads),
        width=features,
    )


def _bottleneck(checkpoint: Checkpoint, name: str, inputs: int, planes: int, stride: int) -> Bottleneck:
    outputs = planes * _EXPANSION
    first, second, third = (
        _convolution(checkpoint, f"{name}.conv{n}", f"{name}.bn{n}", *shape)
        for n, shape in ((1, (planes, inputs, 1)), (2, (planes, planes, 3)), (3, (outputs, planes, 1)))
    )
    own = stride > 1 or inputs != outputs
    shortcut = f"{name}.downsample"
    return Bottleneck(
        first,
        second,
        third,
        _convolution(checkpoint, f"{shortcut}.0", f"{shortcut}.1", outputs, inputs, 1) if own else None,
        stride,
    )


def _convolution(
    checkpoint: Checkpoint, name: str, norm: str, outputs: int, inputs: int, size: int, *, stride: int = 1
) -> Convolution:
    """Fold a batch norm into the convolution before it: W · s, shift - mean · s; s = scale / √(variance + ε)."""
    kernel = checkpoint.weight(f"{name}.weight", outputs, inputs, size, size)
    scale, shift, mean, variance = (
        checkpoint.weight(f"{norm}.{part}", outputs) for part in ("weight", "bias", "running_mean", "running_var")
    )

    def factor() -> NDArray[np.float64]:
        made: NDArray[np.float64] = scale.read() / np.sqrt(variance.read().astype(np.float64) + _EPSILON)
        return made

    return Convolution(
        Weight(kernel.shape, lambda: (kernel.read() * factor()[:, None, None, None]).astype(np.float32)),
        Weight((outputs,), lambda: (shift.read() - mean.read() * factor()).astype(np.float32)),
        stride,
    )


def _linear(checkpoint: Checkpoint, name: str, inputs: int, outputs: int) -> Linear:
    weight = checkpoint.weight(f"{name}.weight", outputs, inputs).transposed
    return Linear(weight, checkpoint.weight(f"{name}.bias", outputs))
