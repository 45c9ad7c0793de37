"""The surgery keeps the pretrained function, and the quick forward pass is transformers' own."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from overflight.models import forward, start, towers  # noqa: E402

SMALL = towers.Shape(
    image_px=28,
    width=48,
    image_blocks=2,
    image_heads=3,
    text_width=32,
    text_blocks=2,
    text_heads=2,
    vocabulary=50,
)


def test_folding_the_gains_changes_no_output() -> None:
    """gain * (W x + b) is one linear layer."""
    draw = torch.Generator().manual_seed(0)
    weight, bias, gain = (torch.randn(*s, generator=draw) for s in ((4, 4), (4,), (4,)))
    x = torch.randn(4, generator=draw)
    state = {
        "encoder.layers.0.mlp.fc2.weight": weight,
        "encoder.layers.0.mlp.fc2.bias": bias,
        "encoder.layers.0.gain2": gain,
    }
    expected = gain * (weight @ x + bias)
    towers.fold_gains(state)
    folded = state["encoder.layers.0.mlp.fc2.weight"] @ x + state["encoder.layers.0.mlp.fc2.bias"]
    assert set(state) == {"encoder.layers.0.mlp.fc2.weight", "encoder.layers.0.mlp.fc2.bias"}
    assert torch.allclose(folded, expected, atol=1e-6)


def test_the_quick_forward_pass_agrees_with_transformers() -> None:
    """Cosine above 0.999 in the quick precision on both towers."""
    model = towers.build(SMALL, 0, pretrained=False).eval()
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 3, 28, 28, generator=draw)
    ids = torch.randint(0, 50, (3, 64), generator=draw)
    with torch.inference_mode():
        pairs = [
            (
                forward.encode_images(pixels, model.vision_model),
                model.vision_model(pixel_values=pixels).pooler_output,
            ),
            (
                forward.encode_texts(ids, model.text_model),
                model.text_model(input_ids=ids).pooler_output,
            ),
        ]
    for ours, theirs in pairs:
        assert torch.cosine_similarity(ours, theirs).min() > 0.999


def test_the_position_grid_keeps_its_own_size() -> None:
    """Resizing a grid to its own side changes nothing."""
    grid = np.random.default_rng(0).standard_normal((5, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(towers.resize_grid(grid, 5).numpy(), grid.reshape(25, 3), atol=1e-5)


def test_the_started_head_returns_the_regression() -> None:
    """Before any training the pooled output is close to the least-squares fit of the targets."""
    vision = towers.build(SMALL, 0, pretrained=False).vision_model
    draw = torch.Generator().manual_seed(2)
    tokens = torch.randn(64, 4, 48, generator=draw)
    targets = torch.randn(64, 48, generator=draw)
    start.start_head(vision, tokens, targets, done=0)
    with torch.no_grad():
        found = forward.encode_tokens(tokens, vision, 0)
    features = start.pool_means(tokens, vision, 0)
    weight, bias = start.solve_ridge(features, targets, 1e-3 * float(features.var(0).mean()) + 1e-2)
    expected = features @ weight.T + bias
    assert torch.cosine_similarity(found, expected).min() > 0.95


def test_a_ridge_without_price_finds_the_map() -> None:
    """Exact data give the exact weight and bias."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(200, 5, generator=draw)
    weight, bias = torch.randn(4, 5, generator=draw), torch.randn(4, generator=draw)
    found = start.solve_ridge(x, x @ weight.T + bias, 0.0)
    assert torch.allclose(found[0], weight, atol=1e-4)
    assert torch.allclose(found[1], bias, atol=1e-4)
