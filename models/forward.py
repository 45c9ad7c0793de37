"""Run the SigLIP towers as transformers does, in the precision this processor multiplies fastest."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

QUICK = torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else torch.float32
"""The precision of the products: without AMX tiles bfloat16 has half of float32's rate (83 to 150 GFLOP/s a core)."""


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer in QUICK, whatever its own precision."""
    assert layer.bias is not None
    return functional.linear(x, layer.weight.to(QUICK), layer.bias.to(QUICK))


def normalise(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Apply a layer norm in float32 and hand on QUICK."""
    return layer(x).to(QUICK)


def attend(x: Tensor, attention: nn.Module) -> Tensor:
    """Return self-attention of QUICK `[N, T, D]`."""
    n, t, d = x.shape
    heads = attention.num_heads
    weight = torch.cat([m.weight for m in (attention.q_proj, attention.k_proj, attention.v_proj)])
    bias = torch.cat([m.bias for m in (attention.q_proj, attention.k_proj, attention.v_proj)])
    joint = functional.linear(x, weight.to(QUICK), bias.to(QUICK))
    q, k, v = joint.view(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    scores = (q * (d // heads) ** -0.5) @ k.transpose(-1, -2)
    mixed = scores.softmax(-1) @ v
    return linear(mixed.transpose(1, 2).reshape(n, t, d), attention.out_proj)


def drop_path(branch: Tensor, rate: float, draw: torch.Generator | None) -> Tensor:
    """Zero whole branches of random samples, scaling the kept ones up."""
    if rate == 0.0:
        return branch
    keep = torch.rand(branch.shape[0], 1, 1, generator=draw) >= rate
    return branch * (keep.to(branch.dtype) / (1.0 - rate))


def run_blocks(x: Tensor, layers: nn.ModuleList, drop: float = 0.0, draw: torch.Generator | None = None) -> Tensor:
    """Run pre-norm transformer blocks on float32 `[N, T, D]`; stochastic depth grows linearly."""
    last = max(len(layers) - 1, 1)
    for number, layer in enumerate(layers):
        rate = drop * number / last
        branch = attend(normalise(x, layer.layer_norm1), layer.self_attn)
        x = x + drop_path(branch * getattr(layer, "gain1", 1.0), rate, draw)
        hidden = functional.gelu(linear(normalise(x, layer.layer_norm2), layer.mlp.fc1))
        branch = linear(hidden, layer.mlp.fc2)
        x = x + drop_path(branch * getattr(layer, "gain2", 1.0), rate, draw)
    return x


def pool(x: Tensor, head: nn.Module) -> Tensor:
    """Return the attention-pooled `[N, D]` of float32 normed tokens, as SigLIP's head does."""
    n, t, d = x.shape
    attention = head.attention
    heads = attention.num_heads
    wq, wkv = attention.in_proj_weight.split([d, 2 * d])
    bq, bkv = attention.in_proj_bias.split([d, 2 * d])
    q = functional.linear(head.probe[0], wq, bq).view(1, heads, d // heads).transpose(0, 1)
    kv = functional.linear(x.to(QUICK), wkv.to(QUICK), bkv.to(QUICK))
    k, v = kv.view(n, t, 2, heads, d // heads).permute(2, 0, 3, 1, 4)
    scores = (q.to(QUICK) * (d // heads) ** -0.5) @ k.transpose(-1, -2)
    mixed = (scores.float().softmax(-1).to(QUICK) @ v).transpose(1, 2).reshape(n, d)
    pooled = functional.linear(mixed.float(), attention.out_proj.weight, attention.out_proj.bias)
    hidden = head.mlp.fc2(functional.gelu(head.mlp.fc1(head.layernorm(pooled))))
    return pooled + hidden


def embed_patches(pixels: Tensor, vision: nn.Module) -> Tensor:
    """Return patch tokens with their positions `[N, T, D]`, the grid resized to the image."""
    conv = vision.embeddings.patch_embedding
    stride = conv.stride[0]
    n, c, h, w = pixels.shape
    rows, columns = h // stride, w // stride
    patches = pixels.view(n, c, rows, stride, columns, stride).permute(0, 2, 4, 1, 3, 5)
    flat = patches.reshape(n, rows * columns, -1).to(QUICK)
    tokens = functional.linear(flat, conv.weight.flatten(1).to(QUICK), conv.bias.to(QUICK)).float()
    grid = vision.embeddings.position_embedding.weight
    side = int(grid.shape[0] ** 0.5)
    if side != rows:
        plane = grid.T.reshape(1, -1, side, side)
        plane = functional.interpolate(plane, (rows, columns), mode="bicubic", antialias=True)
        grid = plane[0].flatten(1).T
    return tokens + grid


def keep_tokens(x: Tensor, share: float, draw: torch.Generator | None) -> Tensor:
    """Keep a random share of each sample's tokens."""
    n, t, d = x.shape
    kept = torch.rand(n, t, generator=draw).argsort(1)[:, : max(1, round(share * t))]
    return x.gather(1, kept[..., None].expand(-1, -1, d))


def encode_images(
    pixels: Tensor,
    vision: nn.Module,
    drop: float = 0.0,
    share: float = 1.0,
    draw: torch.Generator | None = None,
) -> Tensor:
    """Return image embeddings `[N, D]`, not normalised, of normalised pixels `[N, 3, H, W]`."""
    return encode_tokens(embed_patches(pixels, vision), vision, 0, drop, share, draw)


def encode_tokens(
    x: Tensor,
    vision: nn.Module,
    done: int,
    drop: float = 0.0,
    share: float = 1.0,
    draw: torch.Generator | None = None,
) -> Tensor:
    """Return image embeddings of tokens that have already been through the first `done` blocks."""
    if share < 1.0:
        x = keep_tokens(x, share, draw)
    x = run_blocks(x, vision.encoder.layers[done:], drop, draw)
    return pool(vision.post_layernorm(x), vision.head)


def read_last(x: Tensor, layer: nn.Module) -> Tensor:
    """Run one block for the last position alone, float32 `[N, T, D]` to `[N, D]`."""
    attention = layer.self_attn
    heads = attention.num_heads
    n, t, d = x.shape
    normed = normalise(x, layer.layer_norm1)
    q = linear(normed[:, -1:], attention.q_proj).view(n, 1, heads, -1).transpose(1, 2)
    k = linear(normed, attention.k_proj).view(n, t, heads, -1).transpose(1, 2)
    v = linear(normed, attention.v_proj).view(n, t, heads, -1).transpose(1, 2)
    scores = (q * (d // heads) ** -0.5) @ k.transpose(-1, -2)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, d)
    last = x[:, -1] + linear(mixed, attention.out_proj)
    hidden = functional.gelu(linear(normalise(last, layer.layer_norm2), layer.mlp.fc1))
    return last + linear(hidden, layer.mlp.fc2)


def encode_texts(ids: Tensor, text: nn.Module, places: Tensor | None = None) -> Tensor:
    """Return text embeddings `[N, D]`, not normalised, of ids `[N, 64]`.

    `places` names the positions to keep (the last must be 63): training skips most padding so.
    """
    embeddings = text.embeddings
    position = embeddings.position_embedding.weight
    if places is not None:
        ids, position = ids[:, places], position[places]
    x = embeddings.token_embedding(ids) + position
    layers = text.encoder.layers
    x = read_last(run_blocks(x, layers[:-1]), layers[-1])
    return functional.linear(text.final_layer_norm(x), text.head.weight, text.head.bias)
