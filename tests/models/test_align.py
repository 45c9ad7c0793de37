"""Aligning: the bridge folded into the text tower is the bridge."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the recipe needs torch: pip install torch==2.13.0")
pytest.importorskip("transformers", reason="the recipe needs transformers")

from overflight.models import align, forward, objective  # noqa: E402
from overflight.models.towers import Shape, build  # noqa: E402


def test_a_folded_bridge_lands_where_the_bridge_leads(tmp_path: Path) -> None:
    """The tower after folding equals the tower before it, sent over the bridge."""
    draw = torch.Generator().manual_seed(3)
    text = build(Shape(vocabulary=40), 1, pretrained=False).text_model
    torch.save({"text": text.state_dict()}, tmp_path / "text.pt")
    bridge = objective.Bridge(torch.randn(384, generator=draw) * 0.1)
    with torch.no_grad():
        bridge.linear.weight.add_(torch.randn(384, 384, generator=draw) * 0.02)
    folded = align.open_text(tmp_path / "text.pt", 40, bridge.state_dict())
    ids = torch.randint(2, 40, (3, 64), generator=draw)
    with torch.inference_mode():
        expected = bridge(forward.encode_texts(ids, text))
        found = torch.nn.functional.normalize(forward.encode_texts(ids, folded), dim=-1)
    assert torch.allclose(found, expected, atol=1e-3)
