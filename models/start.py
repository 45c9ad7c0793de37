"""Start the pooling head where it already classifies: a mean over tokens, then ridge regression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from overflight.models import forward


def pool_means(tokens: Tensor, vision: nn.Module, done: int) -> Tensor:
    """Return the mean normed token `[N, D]` after the blocks from `done` on."""
    parts = []
    with torch.no_grad():
        for part in tokens.split(64):
            x = forward.run_blocks(part.float(), vision.encoder.layers[done:])
            parts.append(vision.post_layernorm(x).mean(1))
    return torch.cat(parts)


def solve_ridge(features: Tensor, targets: Tensor, price: float) -> tuple[Tensor, Tensor]:
    """Return (weight `[out, in]`, bias) of the linear map with the least squared error."""
    x, y = features.double(), targets.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x + price * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, x.T @ y).T
    return weight.float(), (mean_y - weight @ mean_x).float()


def start_head(vision: nn.Module, tokens: Tensor, targets: Tensor, done: int) -> None:
    """Set SigLIP's head so that it returns the ridge regression of the mean token.

    Scores start near zero (attention is uniform), values pass unchanged, the output projection is
    the regression, and the MLP's last matrix is zero; all of it is then trained.
    """
    torch.nn.init.ones_(vision.post_layernorm.weight)
    torch.nn.init.zeros_(vision.post_layernorm.bias)
    features = pool_means(tokens, vision, done)
    weight, bias = solve_ridge(features, targets, 1e-3 * float(features.var(0).mean()) + 1e-2)
    head, width = vision.head, features.shape[1]
    with torch.no_grad():
        head.attention.in_proj_weight[:width].mul_(0.1)
        head.attention.in_proj_weight[2 * width :] = torch.eye(width)
        head.attention.in_proj_bias.zero_()
        head.attention.out_proj.weight.copy_(weight)
        head.attention.out_proj.bias.copy_(bias)
        head.mlp.fc2.weight.zero_()
        head.mlp.fc2.bias.zero_()
