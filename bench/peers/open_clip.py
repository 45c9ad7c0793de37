"""open_clip: the image tower of its own SigLIP models, carrying the checkpoint's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.peers.serve import LoadedPeer, PeerUnavailable
from overflight.bench.peers.transformers_torch import normalisation
from overflight.export.torchvision_operators import define_missing_operators

# width, blocks, patch, side -> open_clip's name
_MODELS = {(768, 12, 16, 256): "ViT-B-16-SigLIP-256", (1024, 24, 16, 256): "ViT-L-16-SigLIP-256"}
_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_HEAD = {
    "vision_model.post_layernorm": "norm",
    "vision_model.head.attention.out_proj": "attn_pool.proj",
    "vision_model.head.layernorm": "attn_pool.norm",
    "vision_model.head.mlp.fc1": "attn_pool.mlp.fc1",
    "vision_model.head.mlp.fc2": "attn_pool.mlp.fc2",
}


def load(job: dict[str, Any]) -> LoadedPeer:
    """Build open_clip's model of this shape and fill its image tower."""
    import torch
    import transformers

    define_missing_operators()
    import open_clip

    config = transformers.AutoConfig.from_pretrained(job["checkpoint"])
    vision = config.vision_config
    shape = (vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size)
    if config.model_type == "clip" or shape not in _MODELS:
        raise PeerUnavailable(f"open_clip has no SigLIP model of width, blocks, patch and side {shape}")
    torch.set_num_threads(job["threads"] or torch.get_num_threads())
    settings = open_clip.get_model_config(_MODELS[shape])
    tower = open_clip.model._build_vision_tower(settings["embed_dim"], settings["vision_cfg"])
    left = tower.trunk.load_state_dict(_renamed(Path(job["checkpoint"]), vision.num_hidden_layers), strict=False)
    if left.missing_keys or left.unexpected_keys:
        raise PeerUnavailable(f"open_clip's tower has other weights: {[*left.missing_keys, *left.unexpected_keys][:3]}")
    tower.eval()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in normalisation(job["checkpoint"]))

    def embed(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std
            answer: NDArray[np.float32] = torch.nn.functional.normalize(tower(pixels), dim=-1).numpy()
            return answer

    return LoadedPeer(embed, {"open_clip": open_clip.__version__, "torch": torch.__version__})


def _renamed(checkpoint: Path, blocks: int) -> dict[str, Any]:
    """Read the tower's tensors under timm's names: q, k and v in one, the pool's queries apart from its keys."""
    import torch
    from safetensors import safe_open

    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        held = {name: file.get_tensor(name).float() for name in file.keys() if name.startswith("vision_model.")}  # noqa: SIM118 - no mapping
    named = {
        "pos_embed": held["vision_model.embeddings.position_embedding.weight"][None],
        "attn_pool.latent": held["vision_model.head.probe"],
    }
    width = named["attn_pool.latent"].shape[-1]
    for part in ("weight", "bias"):
        named[f"patch_embed.proj.{part}"] = held[f"vision_model.embeddings.patch_embedding.{part}"]
        named |= {f"{new}.{part}": held[f"{old}.{part}"] for old, new in _HEAD.items()}
        pooled = held[f"vision_model.head.attention.in_proj_{part}"]
        named[f"attn_pool.q.{part}"], named[f"attn_pool.kv.{part}"] = pooled[:width], pooled[width:]
        for number in range(blocks):
            old = f"vision_model.encoder.layers.{number}"
            named |= {f"blocks.{number}.{new}.{part}": held[f"{old}.{name}.{part}"] for name, new in _BLOCK.items()}
            three = [held[f"{old}.self_attn.{which}_proj.{part}"] for which in "qkv"]
            named[f"blocks.{number}.attn.qkv.{part}"] = torch.cat(three)
    return named
