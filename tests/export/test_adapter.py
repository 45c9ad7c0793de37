"""LoRA adapters are merged into their base as PEFT merges them, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from overflight.export.assemble import export
from overflight.export.checkpoint import Checkpoint, Reading
from overflight.runtime.errors import MissingError, UsageError

Tiny = Callable[..., Path]
NAME = "vision_model.encoder.layers.0.self_attn.q_proj"


def write_adapter(directory: Path, base: str = "somebody/siglip", **changes: Any) -> Path:
    """Write an adapter of rank 2 on one product."""
    directory.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": base, "lora_dropout": 0.1}
    (directory / "adapter_config.json").write_text(json.dumps({**settings, **changes}))
    random = np.random.default_rng(0)
    factors = {
        f"base_model.model.{NAME}.lora_A.weight": random.standard_normal((2, 16), np.float32),
        f"base_model.model.{NAME}.lora_B.weight": random.standard_normal((16, 2), np.float32),
    }
    save_file(factors, directory / "adapter_model.safetensors")
    return directory


@pytest.mark.parametrize(("changes", "scale"), [({}, 3.0), ({"use_rslora": True}, 6 / np.sqrt(2))])
def test_the_adapted_weight_is_base_plus_scaled_product(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], scale: float
) -> None:
    """W + alpha / r · B · A, or alpha / √r with use_rslora; every other weight is the base's."""
    base, adapter = tiny("siglip"), write_adapter(tmp_path / "adapter", **changes)
    before, factors = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    merged = Checkpoint.open(adapter, Reading(base=base))
    product = factors[f"base_model.model.{NAME}.lora_B.weight"] @ factors[f"base_model.model.{NAME}.lora_A.weight"]
    expected = before[f"{NAME}.weight"] + scale * product
    assert np.abs(merged.weight(f"{NAME}.weight", 16, 16).read() - expected).max() < 1e-5
    other = NAME.replace("q_proj", "k_proj")
    assert np.array_equal(merged.weight(f"{other}.weight", 16, 16).read(), before[f"{other}.weight"])


def test_a_merged_model_is_exported_with_its_base_named(tiny: Tiny, tmp_path: Path, no_torch: None) -> None:
    """The base is found where the adapter names it; the tower is another, and the manifest says what was merged."""
    base = tiny("siglip")
    adapter = write_adapter(tmp_path / "adapter", str(base))
    made, plain = export(adapter, tmp_path / "bundle"), export(base, tmp_path / "plain")
    assert made.manifest.tower != plain.manifest.tower
    assert made.manifest.notes == ("LoRA adapter adapter (r 2, alpha 6, 1 weights) merged into siglip",)


@pytest.mark.parametrize("place", ["same", "neighbour"])
def test_the_base_is_found_next_to_the_adapter(tiny: Tiny, place: str) -> None:
    """In the adapter's own directory, or next to it under the name that the adapter gives."""
    base = tiny("siglip")
    adapter = write_adapter(base if place == "same" else base.parent / "adapter")
    assert Checkpoint.open(adapter).adapted


def test_an_adapter_alone_asks_for_its_base(tmp_path: Path) -> None:
    """The error names the base and the option."""
    with pytest.raises(MissingError, match=r"adapter of somebody/siglip, without its base; .* --base"):
        Checkpoint.open(write_adapter(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3', expected LORA"),
        ({"use_dora": True}, "use_dora is set, which is more than plain LoRA"),
        ({"modules_to_save": ["head"]}, "modules_to_save is set"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is set"),
        ({"bias": "all"}, "bias is set"),
        ({"r": 0}, "r 0 is set"),
        ({"novel": 1}, "novel: not a setting that an export knows"),
        ({"r": "two"}, "Expected `int`, got `str`"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(
    tiny: Tiny, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """It would be merged wrongly."""
    with pytest.raises(UsageError, match=said):
        Checkpoint.open(write_adapter(tmp_path / "adapter", **changes), Reading(base=tiny("siglip")))


def test_an_adapter_of_another_model_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """Factors that do not fit, and weights that the base does not have."""
    adapter = write_adapter(tmp_path / "adapter")
    factors = load_file(adapter / "adapter_model.safetensors")
    save_file({name: value[:, :8].copy() for name, value in factors.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="do not fit"):
        Checkpoint.open(adapter, Reading(base=tiny("siglip")))
    renamed = {name.replace("q_proj", "qkv"): value for name, value in factors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="no tensor"):
        Checkpoint.open(adapter, Reading(base=tiny("siglip")))


def test_base_without_an_adapter_is_a_mistake(tiny: Tiny) -> None:
    """--base on a plain checkpoint is refused."""
    with pytest.raises(UsageError, match="--base has no meaning"):
        Checkpoint.open(tiny("siglip"), Reading(base=tiny("siglip")))
