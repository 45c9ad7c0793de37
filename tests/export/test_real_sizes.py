"""Parity with transformers at the towers' real sizes, with random weights, and what an export costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.export.assemble import export

Write = Callable[..., Path]
pytestmark = pytest.mark.slow
large = pytest.mark.campaign  # minutes and gigabytes


def tower(width: int, layers: int, heads: int, inner: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner,
    }


def siglip(half: dict[str, int], side: int, patch: int, context: int = 64, vocabulary: int = 32000) -> dict[str, Any]:
    return {
        "model_type": "siglip",
        "vision_config": {**half, "image_size": side, "patch_size": patch},
        "text_config": {**half, "max_position_embeddings": context, "vocab_size": vocabulary},
    }


def clip(image: dict[str, int], patch: int, text: dict[str, int], width: int) -> dict[str, Any]:
    return {
        "model_type": "clip",
        "projection_dim": width,
        "vision_config": {**image, "image_size": 224, "patch_size": patch},
        "text_config": {**text, "max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 2},
    }


BASE, LARGE, SO400M = tower(768, 12, 12, 3072), tower(1024, 24, 16, 4096), tower(1152, 27, 16, 4304)
SIZES = {
    "CLIP B/32": (clip(BASE, 32, tower(512, 12, 8, 2048), 512), "F32"),
    "CLIP L/14": (clip(LARGE, 14, tower(768, 12, 12, 3072), 768), "F16"),
    "SigLIP B/16-256": (siglip(BASE, 256, 16), "F32"),
    "SigLIP L/16-256": (siglip(LARGE, 256, 16), "F16"),
    "SigLIP so400m/14-224": (siglip(SO400M, 224, 14, context=16), "F16"),
    "SigLIP 2 B/16-256": (siglip(BASE, 256, 16, vocabulary=256000), "F32"),
    "SigLIP 2 so400m/16-384": (siglip(SO400M, 384, 16, vocabulary=256000), "F16"),
    "CLIP H/14": (clip(tower(1280, 32, 16, 5120), 14, tower(1024, 24, 16, 4096), 1024), "F16"),
}


@pytest.mark.torch
@pytest.mark.parametrize(
    "size",
    [
        "CLIP B/32",
        pytest.param("CLIP L/14", marks=large),
        "SigLIP B/16-256",
        "SigLIP L/16-256",
        pytest.param("SigLIP so400m/14-224", marks=large),
        pytest.param("CLIP H/14", marks=large),
        "SigLIP 2 B/16-256",
    ],
)
def test_both_towers_equal_transformers_at_real_size(write: Write, size: str, tmp_path: Path) -> None:
    """At most 1e-5 between the unit embeddings; in practice a hundredth of that."""
    pytest.importorskip("transformers")
    settings, dtype = SIZES[size]
    try:
        made = export(write(tmp_path / "checkpoint", settings, dtype=dtype), tmp_path / "bundle")
        for row in made.manifest.parity:
            assert row.reference.startswith("transformers ")
            assert row.max_abs <= 1e-5
            print(f"{size:<22} {row.tower:<5} {row.max_abs:.1e}  {row.reference}")
    finally:
        shutil.rmtree(tmp_path)


# Run where torch and transformers cannot be imported; prints the peak of the process in bytes.
MEASURE = """
import re, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers"):
            raise ImportError(name)

sys.meta_path.insert(0, Nothing())
from pathlib import Path
from overflight.export.assemble import export

export(Path(sys.argv[1]), Path(sys.argv[2]))
assert not {"torch", "transformers"} & set(sys.modules)
# The kernel counts a parent's memory into ru_maxrss when a child is started; VmHWM is this program's own.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.parametrize(
    "size",
    [
        "SigLIP B/16-256",
        pytest.param("SigLIP L/16-256", marks=large),
        pytest.param("SigLIP 2 so400m/16-384", marks=large),
        pytest.param("CLIP H/14", marks=large),
    ],
)
def test_an_export_without_torch_stays_small(write: Write, size: str, tmp_path: Path) -> None:
    """Peak memory is at most 2.5 times the weights, in 16 bit as they lie on disk, in a process without torch."""
    settings, _ = SIZES[size]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        checkpoint = write(tmp_path / "checkpoint", settings, dtype="F16")
        weights_bytes = (checkpoint / "model.safetensors").stat().st_size
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(checkpoint), str(tmp_path / "bundle")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
        assert all(row["reference"].startswith("float64, numpy") for row in manifest["parity"])
        ratio = int(done.stdout) / weights_bytes
        print(f"{size}: peak {ratio:.2f} x {weights_bytes / 1e9:.2f} GB")
        assert ratio <= 2.5
    finally:
        shutil.rmtree(tmp_path)
