"""Damaged checkpoints: truncated, renamed, re-typed, of wrong shapes. One line each, never a traceback."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.runtime.errors import OverflightError

Tiny = Callable[..., Path]
JUNK: tuple[Any, ...] = (None, True, -1, 0, 3, 10**9, 1e308, "", "gelu", [], [1], {}, {"a": 1}, 2**70, "\x00", [[1]])
NAMES = (
    "config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "spiece.model", "adapter_config.json",
    "open_clip_config.json", "processor_config.json", "open_clip_pytorch_model.bin", "x",
)  # fmt: skip


def change_value(value: Any, rng: random.Random) -> Any:
    """Replace, rename, remove or add one thing somewhere inside."""
    if not isinstance(value, dict) or not value:
        return rng.choice(JUNK)
    key = rng.choice(sorted(value))
    match rng.randrange(6):
        case 0:
            del value[key]
        case 1:
            value[rng.choice(("novel", "hidden_size", "use_rope"))] = rng.choice(JUNK)
        case 2:
            value[f"{key}_"] = value.pop(key)
        case _:
            value[key] = change_value(value[key], rng)
    return value


def change_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Cut, overwrite, empty or lengthen a file."""
    at = rng.randrange(len(raw) + 1)
    return rng.choice(
        (raw[:at], raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :], b"", raw + raw[:at], b"\xff" * 9)
    )


def change_tensors(path: Path, rng: random.Random) -> None:
    """Remove, add, cut, retype, rename or deepen one tensor."""
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    match rng.randrange(6):
        case 0:
            del tensors[name]
        case 1:
            tensors[rng.choice(("vision_model.x", "visual.extra", f"{name}.lora_A"))] = np.ones(3, np.float32)
        case 2:
            tensors[name] = tensors[name][..., :-1].copy() if tensors[name].ndim else np.ones(2, np.float32)
        case 3:
            tensors[name] = tensors[name].astype(rng.choice((np.int8, np.float64, np.bool_)))
        case 4:
            tensors[f"{name}2"] = tensors.pop(name)
        case _:
            tensors[name] = tensors[name][None].copy()
    save_file(tensors, path)


def damage(directory: Path, rng: random.Random) -> None:
    """Do one thing to one file."""
    path = rng.choice(sorted(one for one in directory.iterdir() if one.is_file()))
    kind = rng.random()
    if kind < 0.5 and path.suffix == ".json":
        path.write_text(json.dumps(change_value(json.loads(path.read_text()), rng)))
    elif kind < 0.5 and path.suffix == ".safetensors":
        change_tensors(path, rng)
    elif kind < 0.75:
        path.write_bytes(change_bytes(path.read_bytes(), rng))
    elif kind < 0.85:
        path.rename(path.with_name(rng.choice(NAMES)))
    else:
        path.unlink()
        if kind > 0.95:
            path.mkdir()


@pytest.mark.parametrize("family", ["siglip", "siglip2", "clip", "clip-gelu"])
def test_a_damaged_checkpoint_is_one_line(family: str, tiny: Tiny, tmp_path: Path) -> None:
    """Each damage is answered by one of the package's own errors, or changed nothing that matters."""
    rng = random.Random(family)
    whole = tiny(family, shards=2 if family == "clip" else 1)
    refused = 0
    for _ in range(60):
        case = tmp_path / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(whole, case)
        damage(case, rng)
        try:
            opened = Checkpoint.open(case)
            describe(opened)
            opened.hash_tensors()
        except OverflightError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 40
