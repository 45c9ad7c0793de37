"""The proof from outside, in transformers' layout: its own loading, image processor and tokenizer have to agree."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.export.assemble import export
from overflight.export.checkpoint import Reading
from overflight.runtime.errors import EngineError, MissingError, UsageError

FIXTURES = Path(__file__).parent / "fixtures"
pytestmark = pytest.mark.torch
Write = Callable[..., Path]

_HALF = {"intermediate_size": 96, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
_IMAGE = {**_HALF, "image_size": 64, "patch_size": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    "siglip": {
        "model_type": "siglip",
        "vision_config": _IMAGE,
        "text_config": {**_HALF, "vocab_size": 600, "max_position_embeddings": 64},
    },
    "clip": {
        "model_type": "clip",
        "projection_dim": 48,
        "vision_config": _IMAGE,
        "text_config": {
            **_HALF,
            "vocab_size": 800,
            "max_position_embeddings": 77,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
    },
}
_CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 64},
    "crop_size": {"height": 64, "width": 64},
}
_SIGLIP = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}}
# Family, tokenizer, preprocessor_config.json: omitted keys have the defaults of their class.
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "clip, all omitted": ("clip", "clip", _CLIP),
    "clip, sizes as numbers": ("clip", "clip", {**_CLIP, "size": 64, "crop_size": 64}),
    "clip, larger edge": ("clip", "clip", {**_CLIP, "size": {"shortest_edge": 80}}),
    "clip, old name": (
        "clip",
        "clip",
        {"feature_extractor_type": "CLIPFeatureExtractor", **_CLIP} | {"image_processor_type": None},
    ),
    "clip, squashed": ("clip", "clip", {**_CLIP, "size": {"height": 64, "width": 64}, "do_center_crop": False}),
    "clip, bilinear": ("clip", "clip", {**_CLIP, "resample": 2, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2] * 3}),
    "clip, not normalised": ("clip", "clip", {**_CLIP, "do_normalize": False}),
    "siglip, all omitted": ("siglip", "siglip", _SIGLIP),
    "siglip, cropped": (
        "siglip",
        "siglip",
        {**_SIGLIP, "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
    ),
    "siglip, as ViT": (
        "siglip",
        "siglip",
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64}},
    ),
    "siglip 2": ("siglip", "siglip2", _SIGLIP),
}


def put(directory: Path, tokenizer: str, preprocessing: dict[str, Any]) -> Path:
    """Give a checkpoint a real tokenizer and settings of its pictures."""
    (directory / "tokenizer.json").unlink()
    for path in (FIXTURES / tokenizer).iterdir():
        if path.name != "golden.json":
            shutil.copy(path, directory)
    given = {key: value for key, value in preprocessing.items() if value is not None}
    (directory / "preprocessor_config.json").write_text(json.dumps(given))
    return directory


@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_agrees(variant: str, write: Write, tmp_path: Path) -> None:
    """Both towers equal transformers', which reads config, preprocessor and tokenizer itself."""
    pytest.importorskip("transformers")
    pytest.importorskip("PIL")
    family, tokenizer, preprocessing = VARIANTS[variant]
    directory = put(write(tmp_path / "checkpoint", SETTINGS[family], dtype="F32"), tokenizer, preprocessing)
    made = export(directory, tmp_path / "bundle", prove_outside=True)
    proof = made.manifest.proven
    assert proof is not None
    assert proof.by.startswith("transformers ")
    assert proof.image_cosine > 0.99999
    assert proof.text_max_abs < 1e-5


def test_processor_config_comes_before_preprocessor_config(write: Write, tmp_path: Path) -> None:
    """transformers 5 reads image_processor in processor_config.json first; so does an export."""
    pytest.importorskip("transformers")
    directory = put(write(tmp_path / "checkpoint", SETTINGS["clip"], dtype="F32"), "clip", _CLIP)
    nested = {"image_processor": {**_CLIP, "resample": 2}, "processor_class": "CLIPProcessor"}
    (directory / "processor_config.json").write_text(json.dumps(nested))
    made = export(directory, tmp_path / "bundle", prove_outside=True)
    assert made.manifest.resize.filter == "bilinear"


def test_a_disagreement_ends_the_export(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Had the export cropped where transformers squashes, nothing would be written."""
    pytest.importorskip("transformers")
    from overflight.export.layouts import transformers_siglip
    from overflight.export.preprocessing import read_preprocessing as read
    from overflight.runtime.bundle import Resize

    monkeypatch.setattr(
        transformers_siglip, "read_preprocessing", lambda *a: (Resize(64, "bicubic", "crop"), read(*a)[1])
    )
    directory = put(write(tmp_path / "checkpoint", SETTINGS["siglip"], dtype="F32"), "siglip", _SIGLIP)
    with pytest.raises(EngineError, match=r"transformers .* disagrees: pictures have a cosine of"):
        export(directory, tmp_path / "bundle", prove_outside=True)
    assert not (tmp_path / "bundle").exists()


def test_without_the_library_it_is_named(write: Write, tmp_path: Path, no_torch: None) -> None:
    """--prove needs the publisher's library, and the error names it."""
    directory = put(write(tmp_path / "checkpoint", SETTINGS["siglip"], dtype="F32"), "siglip", _SIGLIP)
    with pytest.raises(MissingError, match="--prove needs transformers"):
        export(directory, tmp_path / "bundle", prove_outside=True)


def test_a_merged_adapter_cannot_be_proven(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would load the base alone."""
    from overflight.export.checkpoint import Checkpoint

    monkeypatch.setattr(Checkpoint, "adapted", True)
    directory = put(write(tmp_path / "checkpoint", SETTINGS["siglip"], dtype="F32"), "siglip", _SIGLIP)
    with pytest.raises(UsageError, match="cannot load a merged adapter"):
        export(directory, tmp_path / "bundle", prove_outside=True, reading=Reading())
