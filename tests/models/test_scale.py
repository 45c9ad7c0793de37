"""Training on crops: what a batch holds, what its loss asks, and that the weights come back whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the recipe needs torch: pip install torch==2.13.0")
pytest.importorskip("transformers", reason="the recipe needs transformers")

from overflight.models import augment, objective, resize, scale, scale_data, strangers, towers  # noqa: E402
from overflight.runtime.errors import UsageError  # noqa: E402

SMALL = towers.Shape(image_px=28, width=48, image_blocks=2, image_heads=3, text_width=32, text_blocks=2, text_heads=2)


def test_crops_reach_from_a_tenth_to_the_whole() -> None:
    """The share of the side is as the plan says, and a view is square whatever the crop."""
    plan, draw = scale_data.ScalePlan(), np.random.default_rng(0)
    parts = [scale_data.draw_part(plan, draw) for _ in range(2000)]
    assert plan.smallest <= min(parts) < 0.12 and 0.99 < max(parts) <= 1
    frame = np.full((150, 150, 3), 90, np.uint8)
    assert scale_data.shoot(frame, 0.1, 98, augment.Strength(), draw).shape == (98, 98, 3)


def test_the_loss_asks_of_each_kind_what_it_knows() -> None:
    """Strangers are pushed off every scene, unlabelled ground off none, and both follow no caption."""
    scenes = torch.eye(5)[:4]
    targets = scale_data.Targets(scenes, scenes, scenes, [], [], scenes, [])
    run = torch.nn.Module()
    run.scores = objective.Scores(0.25)
    images = torch.tensor([[0.7, 0.2, 0.2, 0.2, 0.7]] * 3, requires_grad=True)
    labels = torch.tensor([0, scale_data.UNLABELLED, scale_data.NOTHING])
    batch = scale_data.Batch(images, labels, torch.zeros(3, dtype=torch.long), images.detach(), torch.ones(3))
    plan = scale_data.ScalePlan(teacher_weight=0, smoothing=0)
    (slope,) = torch.autograd.grad(scale.measure(run, images, batch, targets, plan), images)
    assert slope[0] @ scenes[0] < 0 < slope[2] @ scenes[0]
    assert not slope[1].any()


def test_gains_set_apart_and_folded_again_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower that is written is the one that was read."""
    vision = towers.build(SMALL, 0, pretrained=False).vision_model
    before = {name: tensor.clone() for name, tensor in vision.state_dict().items()}
    gains = {f"encoder.layers.{block}.gain{n}": torch.rand(48) + 0.01 for block in range(2) for n in (1, 2)}
    monkeypatch.setattr(scale, "read_backbone", dict)
    monkeypatch.setattr(scale, "convert_backbone", lambda *_, **__: gains)
    state = dict(scale.unfold(vision).state_dict())
    assert not torch.equal(state["encoder.layers.0.mlp.fc2.weight"], before["encoder.layers.0.mlp.fc2.weight"])
    towers.fold_gains(state)
    assert state.keys() == before.keys()
    assert all(torch.allclose(state[name], before[name], rtol=1e-4, atol=1e-6) for name in before)


def test_strangers_are_crops_and_collages(tmp_path: Path) -> None:
    """A large picture gives crops, a small one is pasted, and what is no picture is passed over."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 800, 3), np.uint8)).save(tmp_path / "large.png")
    Image.new("RGBA", (40, 60), (200, 10, 10, 128)).save(tmp_path / "thing.png")
    (tmp_path / "note.txt").write_text("no picture")
    found = strangers.gather([tmp_path])
    assert len(found) == strangers.CROPS + 1
    assert {picture.shape for picture in found} == {(256, 256, 3)}


def test_another_input_size_keeps_everything_but_the_grid(tmp_path: Path) -> None:
    """Interpolated to the same size the grid stays, and a side that is no multiple of the patch is refused."""
    from safetensors.torch import load_file

    made = tmp_path / "made"
    towers.build(SMALL, 0, pretrained=False).save_pretrained(made)
    (made / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 28, "width": 28}}))
    (made / "decisions.json").write_text("{}")
    before = load_file(made / "model.safetensors")
    for side_px in (28, 56):
        resize.resize(made, side_px, tmp_path / str(side_px))
        after = load_file(tmp_path / str(side_px) / "model.safetensors")
        assert after.pop(resize.POSITIONS).shape == ((side_px // 14) ** 2, 48)
        assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
        assert not (tmp_path / str(side_px) / "decisions.json").exists()
    same = load_file(tmp_path / "28" / "model.safetensors")[resize.POSITIONS]
    assert torch.allclose(same, before[resize.POSITIONS], atol=1e-5)
    with pytest.raises(UsageError, match="multiple"):
        resize.resize(made, 100, tmp_path / "odd")
