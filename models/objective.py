"""The losses: a sigmoid over images and texts with many positives, a softmax over scenes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITIVE, NEGATIVE, IGNORED = 1.0, -1.0, 0.0


def start_bias(positives: float) -> float:
    """Return the sigmoid bias at which a pair is positive with the true rate of positives."""
    if not 0.0 < positives < 1.0:
        raise ValueError(f"the rate of positive pairs is {positives}, expected between 0 and 1")
    return math.log(positives / (1.0 - positives))


def pair_scenes(scene: Tensor, count: int) -> Tensor:
    """Return signs `[N, count]`: an image is positive with its scene's prompt alone."""
    own = functional.one_hot(scene, count).bool()
    return torch.where(own, POSITIVE, NEGATIVE)


def pair_captions(scene: Tensor, caption: Tensor, same_scene: float) -> Tensor:
    """Return signs `[N, N]` of images against the batch's captions.

    An image is positive with every caption that reads like its own (`caption` holds text ids);
    captions of other images of its scene count as `same_scene` says: positive or ignored.
    """
    signs = torch.full((len(scene), len(scene)), NEGATIVE)
    signs[scene[:, None] == scene[None]] = same_scene
    signs[caption[:, None] == caption[None]] = POSITIVE
    return signs


def sigmoid_loss(logits: Tensor, signs: Tensor) -> Tensor:
    """Return SigLIP's pairwise loss, summed over texts and averaged over images."""
    losses = -functional.logsigmoid(signs * logits) * (signs != IGNORED)
    return losses.sum(-1).mean()


class Scores(nn.Module):  # type: ignore[misc]
    """Learned scale and bias of the sigmoid, and the scale of the softmax."""

    def __init__(self, positives: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(start_bias(positives)))
        self.sharpness = nn.Parameter(torch.tensor(math.log(15.0)))

    def pairs(self, cosines: Tensor) -> Tensor:
        """Return sigmoid logits of cosines."""
        return cosines * self.scale.exp() + self.bias

    def choices(self, cosines: Tensor) -> Tensor:
        """Return softmax logits of cosines."""
        return cosines * self.sharpness.exp().clamp(max=40.0)


class Bridge(nn.Module):  # type: ignore[misc]
    """A linear map from the teacher's text space to the joint space, started at "centre it"."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(len(mean), len(mean))
        with torch.no_grad():
            self.linear.weight.copy_(torch.eye(len(mean)))
            self.linear.bias.copy_(-mean)

    def forward(self, texts: Tensor) -> Tensor:
        """Return unit joint embeddings of teacher embeddings."""
        return functional.normalize(self.linear(texts), dim=-1)

    def stretch(self) -> Tensor:
        """Return how far the map is from the identity, squared: it is priced."""
        weight = self.linear.weight
        return (weight - torch.eye(len(weight))).square().sum()
