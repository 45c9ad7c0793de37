"""LoRA adapters (PEFT): merged into the base checkpoint that they were trained on, W + scale · B · A.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021; the scale is alpha / r, or alpha / √r where the
adapter says ``use_rslora`` (Kalajdzievski, 2023).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.export.archive import read_archive
from overflight.export.checkpoint import ADAPTER, CONFIG, Checkpoint, Reading
from overflight.export.settings import read_json, read_settings
from overflight.export.tables import ignored_settings
from overflight.export.tensors import Stored, read_safetensors
from overflight.export.tower import Weight
from overflight.runtime.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."  # PEFT's own classes around the model
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


class _Adapter(msgspec.Struct, frozen=True):
    """adapter_config.json; whatever is not at its default here changes what is merged."""

    peft_type: str = ""
    r: int = 8
    lora_alpha: float = 8
    base_model_name_or_path: str = ""
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    use_qalora: bool = False
    lora_bias: bool = False
    bias: str = "none"
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    modules_to_save: list[str] = []


def open_adapted(directory: Path, reading: Reading) -> Checkpoint:
    """Open the base of the adapter in ``directory``, each adapted weight with its share merged in.

    Raises UsageError for another kind of adapter, MissingError where the base is not found.
    """
    adapter = read_settings(
        read_json(directory / ADAPTER), _Adapter, str(directory / ADAPTER), ignored_settings("adapter")
    )
    _check(directory / ADAPTER, adapter)
    pairs = _read_pairs(directory)
    found = reading.base or _find_base(directory, adapter.base_model_name_or_path)
    if found is None:
        raise MissingError(
            f"{directory}: a LoRA adapter of {adapter.base_model_name_or_path or 'an unnamed model'}, without its "
            "base; download the base and give it with --base"
        )
    own = reading.tokenizer or _own_tokenizer(directory)
    checkpoint = Checkpoint.open_plain(found, Reading(like=reading.like, tokenizer=own))
    if checkpoint.layout != "transformers":
        raise UsageError(f"{found}: is in open_clip's layout, but PEFT adapters are of transformers models")
    for name, (down, up) in pairs.items():
        _merge(checkpoint, name, down, up, _scale(adapter))
    checkpoint.notes.append(
        f"LoRA adapter {directory.resolve().name} (r {adapter.r}, alpha {adapter.lora_alpha:g}, "
        f"{len(pairs)} weights) merged into {found.resolve().name}"
    )
    return checkpoint


def _check(path: Path, adapter: _Adapter) -> None:
    if adapter.peft_type.upper() != "LORA":
        raise UsageError(f"{path}: peft_type {adapter.peft_type!r}, expected LORA; merge it with PEFT and export that")
    odd = [
        name
        for name in (
            "use_dora",
            "fan_in_fan_out",
            "use_qalora",
            "lora_bias",
            "rank_pattern",
            "alpha_pattern",
            "modules_to_save",
        )
        if getattr(adapter, name)
    ]
    if odd or adapter.bias != "none" or adapter.r < 1:
        what = ", ".join(odd) or ("bias" if adapter.bias != "none" else f"r {adapter.r}")
        raise UsageError(f"{path}: {what} is set, which is more than plain LoRA; merge it with PEFT and export that")


def _scale(adapter: _Adapter) -> float:
    return adapter.lora_alpha / (math.sqrt(adapter.r) if adapter.use_rslora else adapter.r)


def _read_pairs(directory: Path) -> dict[str, tuple[Stored, Stored]]:
    """Return the factors A and B by the name of the weight that they change."""
    path = next((directory / name for name in _WEIGHTS if (directory / name).is_file()), None)
    if path is None:
        raise MissingError(f"{directory}: no {_WEIGHTS[0]} next to {ADAPTER}; the adapter is incomplete")
    tensors = read_safetensors(path) if path.suffix == ".safetensors" else read_archive(path).tensors
    pairs = {}
    for name, down in tensors.items():
        if name.endswith(_DOWN):
            stem = name.removesuffix(_DOWN)
            if f"{stem}{_UP}" not in tensors:
                raise UsageError(f"{path}: {name!r} without its {_UP[1:]}; the adapter is incomplete")
            pairs[f"{stem.removeprefix(_PREFIX)}.weight"] = (down, tensors[f"{stem}{_UP}"])
        elif not name.endswith(_UP) or name.removesuffix(_UP) + _DOWN not in tensors:
            raise UsageError(f"{path}: {name!r} is more than plain LoRA; merge it with PEFT and export that")
    if not pairs:
        raise UsageError(f"{path}: contains no LoRA weights; export the base model instead")
    return pairs


def _find_base(directory: Path, named: str) -> Path | None:
    """Look for the base in the adapter's own directory, at the path that it names, and among its neighbours."""

    def candidates() -> Iterator[Path]:
        yield directory
        if named:
            yield Path(named)
            yield directory / named
            yield directory.resolve().parent / Path(named).name

    return next((path for path in candidates() if (path / CONFIG).is_file()), None)


def _own_tokenizer(directory: Path) -> Path | None:
    return directory if any((directory / name).is_file() for name in ("tokenizer.json", "spiece.model")) else None


def _merge(checkpoint: Checkpoint, name: str, down: Stored, up: Stored, scale: float) -> None:
    outputs, inputs = checkpoint.shape(name) if len(checkpoint.shape(name)) == 2 else (0, 0)
    if down.shape[1:] != (inputs,) or up.shape[:1] != (outputs,) or down.shape[:1] != up.shape[1:]:
        raise UsageError(
            f"{down.path}: factors {list(up.shape)} and {list(down.shape)} do not fit {name!r} "
            f"{list(checkpoint.shape(name))}; the adapter is of another model"
        )
    checkpoint.change(name, _merging(down, up, scale))
    checkpoint.add({f"{name}{_DOWN}": down, f"{name}{_UP}": up})
    checkpoint.skip(f"{name}{_DOWN}", f"{name}{_UP}")


def _merging(down: Stored, up: Stored, scale: float) -> Callable[[Weight], Weight]:
    def change(weight: Weight) -> Weight:
        def read() -> NDArray[np.float32]:
            share = up.read().astype(np.float64) @ down.read()
            merged: NDArray[np.float32] = (weight.read() + scale * share).astype(np.float32)
            return merged

        return Weight(weight.shape, read)

    return change
