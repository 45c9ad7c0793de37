"""Checkpoints: what is read from disk, and what a broken one is answered with.

Covers: export/outside.py, export/settings.py, export/tensors.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from overflight.export.checkpoint import Checkpoint
from overflight.runtime.errors import MissingError, UsageError

Tiny = Callable[..., Path]
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def test_every_tensor_reads_as_the_library_reads_it(tiny: Tiny) -> None:
    """Mapped weights equal those of safetensors' own loader."""
    directory = tiny("clip")
    checkpoint = Checkpoint.open(directory)
    for name, expected in load_file(directory / SINGLE).items():
        assert np.array_equal(checkpoint.weight(name, *expected.shape).read(), expected)


def test_bfloat16_is_the_upper_half_of_float32(tiny: Tiny) -> None:
    """A bf16 weight is its fp32 twin with the low 16 bits gone."""
    name, shape = "text_model.head.weight", (16, 24)
    full = Checkpoint.open(tiny("siglip")).weight(name, *shape).read()
    half = Checkpoint.open(tiny("siglip", dtype="BF16")).weight(name, *shape).read()
    assert np.array_equal(half.view(np.uint32), full.view(np.uint32) & 0xFFFF0000)


def test_the_hash_does_not_see_how_tensors_are_sharded(tiny: Tiny) -> None:
    """One file or three: the same tower."""
    assert Checkpoint.open(tiny("siglip", shards=3)).hash_tensors() == Checkpoint.open(tiny("siglip")).hash_tensors()


def test_the_hash_sees_a_single_bit(tiny: Tiny) -> None:
    """One flipped bit in one tensor is another tower."""
    directory = tiny("siglip")
    before = Checkpoint.open(directory).hash_tensors()
    raw = bytearray((directory / SINGLE).read_bytes())
    raw[-1] ^= 1
    (directory / SINGLE).write_bytes(raw)
    assert Checkpoint.open(directory).hash_tensors() != before


def test_hashing_reports_its_way_to_the_end(tiny: Tiny) -> None:
    """Progress grows and ends at one."""
    seen: list[float] = []
    Checkpoint.open(tiny("siglip")).hash_tensors(seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_directory_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    """An empty directory is answered with what is missing."""
    with pytest.raises(UsageError, match=r"no checkpoint here \(no config.json, no open_clip_config.json\)"):
        Checkpoint.open(tmp_path)


def test_a_directory_without_weights_is_named(tiny: Tiny) -> None:
    """Settings alone are no checkpoint."""
    directory = tiny("siglip")
    (directory / SINGLE).rename(directory / "flax_model.msgpack")
    with pytest.raises(MissingError, match="settings but no weights; expected one of"):
        Checkpoint.open(directory)


def test_a_renamed_file_is_not_taken_for_a_torch_file(tiny: Tiny) -> None:
    """The content decides, and the refusal is one line."""
    directory = tiny("siglip")
    (directory / SINGLE).rename(directory / "pytorch_model.bin")
    with pytest.raises(UsageError, match="not a complete torch file of weights"):
        Checkpoint.open(directory)


@pytest.mark.parametrize("kept", [0, 5, 400, -1])
def test_a_torn_file_is_refused_before_anything_is_read(tiny: Tiny, kept: int) -> None:
    """A download that stopped anywhere is recognised."""
    path = tiny("siglip") / SINGLE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match="not a complete safetensors file"):
        Checkpoint.open(path.parent)


def test_a_missing_shard_is_named(tiny: Tiny) -> None:
    """The error names the file that is not there."""
    directory = tiny("siglip", shards=2)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UsageError, match="model-00002-of-00002"):
        Checkpoint.open(directory)


def test_an_index_cannot_lead_out_of_the_checkpoint(tiny: Tiny) -> None:
    """A shard's name is a name, not a path."""
    directory = tiny("siglip", shards=2)
    (directory / INDEX).write_text(json.dumps({"weight_map": {"logit_scale": "../secret.safetensors"}}))
    with pytest.raises(UsageError, match="leads out of the checkpoint"):
        Checkpoint.open(directory)


def test_integer_weights_are_refused_when_read(tiny: Tiny) -> None:
    """A quantised checkpoint is not taken for a float one."""
    directory = tiny("siglip")
    tensors = load_file(directory / SINGLE)
    tensors["logit_scale"] = np.zeros(1, dtype=np.int8)
    save_file(tensors, directory / SINGLE)
    with pytest.raises(UsageError, match="I8, expected F32"):
        Checkpoint.open(directory).scalar("logit_scale")


def test_a_tensor_of_another_shape_is_named_with_both_shapes(tiny: Tiny) -> None:
    """Weights and config of different models do not get far."""
    checkpoint = Checkpoint.open(tiny("siglip"))
    with pytest.raises(UsageError, match=r"'logit_scale' is \[1\], but the settings imply \[2, 2\]"):
        checkpoint.weight("logit_scale", 2, 2)
    with pytest.raises(UsageError, match="no tensor 'absent'"):
        checkpoint.weight("absent", 1)
