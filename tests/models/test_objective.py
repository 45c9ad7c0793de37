"""The losses treat equal scenes and equal captions as the recipe says."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from overflight.models import objective  # noqa: E402


def test_an_image_is_positive_with_every_equal_caption_and_ignores_its_scene() -> None:
    """Two images of one scene: own and equal captions positive, the scene's other ones left out."""
    scene = torch.tensor([0, 0, 1])
    caption = torch.tensor([7, 8, 7])
    signs = objective.pair_captions(scene, caption, objective.IGNORED)
    assert signs.tolist() == [[1, 0, 1], [0, 1, -1], [1, -1, 1]]


def test_equal_scenes_can_be_positives() -> None:
    """With POSITIVE for equal scenes nothing of the own scene is a negative."""
    scene = torch.tensor([0, 0, 1])
    signs = objective.pair_captions(scene, torch.arange(3), objective.POSITIVE)
    assert signs.tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]


def test_the_scene_prompt_is_the_only_positive_of_the_bank() -> None:
    """One positive per image and K - 1 negatives."""
    signs = objective.pair_scenes(torch.tensor([2, 0]), 3)
    assert signs.tolist() == [[-1, -1, 1], [1, -1, -1]]


def test_ignored_pairs_cost_nothing() -> None:
    """An ignored pair's logit has no gradient."""
    logits = torch.tensor([[5.0, -3.0]], requires_grad=True)
    objective.sigmoid_loss(logits, torch.tensor([[1.0, 0.0]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
    assert logits.grad[0, 0] < 0.0


def test_the_loss_is_siglips_on_a_plain_diagonal() -> None:
    """With one positive per row it equals -mean(sum(log sigmoid(sign x logit)))."""
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    signs = 2 * torch.eye(4) - 1
    expected = -torch.log(torch.sigmoid(signs * logits)).sum(1).mean()
    assert torch.allclose(objective.sigmoid_loss(logits, signs), expected, atol=1e-6)


def test_the_start_bias_gives_the_true_positive_rate() -> None:
    """sigmoid(bias) is the share of positive pairs."""
    assert 1 / (1 + math.exp(-objective.start_bias(1 / 30))) == pytest.approx(1 / 30)
    with pytest.raises(ValueError, match="expected between 0 and 1"):
        objective.start_bias(0.0)


def test_the_bridge_starts_as_centring() -> None:
    """At the start it subtracts the mean, makes unit, and costs nothing."""
    bridge = objective.Bridge(torch.tensor([1.0, 0.0]))
    assert torch.allclose(bridge(torch.tensor([[1.0, 2.0]])), torch.tensor([[0.0, 1.0]]))
    assert bridge.stretch() == 0.0
