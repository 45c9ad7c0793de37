"""open_clip agrees at the sizes that are published, with random weights: ViT-B-32, RN50, ViT-L-14, ViT-H-14."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.export.assemble import export
from overflight.export.checkpoint import Reading

pytestmark = [pytest.mark.slow, pytest.mark.torch]
large = pytest.mark.campaign  # minutes and gigabytes


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32",
        "RN50-quickgelu",
        pytest.param("ViT-L-14-quickgelu", marks=large),
        pytest.param("ViT-H-14", marks=large),
    ],
)
def test_open_clip_agrees_with_a_bare_file(
    name: str, open_clip: Any, torch: Any, build: Callable[..., Any], clip_tokenizer: Path, tmp_path: Path
) -> None:
    """A state dict as a training leaves it, read with --like; open_clip loads the same file by its own name."""
    path = tmp_path / "weights.pt"
    model = build(open_clip.get_model_config(name))
    torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, path)
    del model
    try:
        made = export(
            path, tmp_path / "bundle", prove_outside=True, reading=Reading(like=name, tokenizer=clip_tokenizer)
        )
        proof = made.manifest.proven
        assert proof is not None
        print(f"{name}: image {proof.image_cosine:.7f} {proof.image_max_abs:.1e}, text {proof.text_max_abs:.1e}")
        assert proof.image_cosine > 0.99999
        assert proof.text_max_abs < 1e-5
    finally:
        shutil.rmtree(tmp_path)
