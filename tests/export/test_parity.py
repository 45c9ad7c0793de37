"""Authored towers answer as transformers does: against committed vectors everywhere, live where torch is installed.

Covers: export/layouts/transformers_clip.py, export/layouts/transformers_siglip.py,
export/layouts/transformers_tensors.py, export/reference.py, export/reference_maths.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from overflight.export.assemble import export
from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.export.reference import TransformersReference

GOLDEN = Path(__file__).parent / "golden"
FAMILIES = ["siglip", "siglip2", "clip", "clip-gelu"]
Tiny = Callable[..., Path]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_authored_towers_answer_as_transformers_did(
    tiny: Tiny, family: str, tmp_path: Path, no_torch: None
) -> None:
    """Without torch, both towers reproduce vectors that transformers computed, to 1e-5."""
    made = export(tiny(family), tmp_path / "bundle")
    written = np.load(GOLDEN / f"{family}.npz")
    proven = np.load(made.file("golden.npz"))
    for name in ("frame_embeddings", "token_embeddings"):
        # golden.npz holds the numpy reference's answers; the manifest says how far the graphs are from those.
        assert np.abs(proven[name] - written[name]).max() < 1e-6
    assert all(row.max_abs < 1e-6 for row in made.manifest.parity)
    assert made.manifest.parity[0].reference.startswith("float64, numpy")


@pytest.mark.torch
@pytest.mark.parametrize("family", FAMILIES)
def test_the_committed_vectors_are_transformers_own(tiny: Tiny, family: str, tmp_path: Path) -> None:
    """The committed vectors equal what transformers computes now; a file that was deleted is written again."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    made = export(tiny(family), tmp_path / "bundle")
    assert made.manifest.parity[0].reference.startswith("transformers ")
    fresh = np.load(made.file("golden.npz"))
    path = GOLDEN / f"{family}.npz"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        np.savez(path, frame_embeddings=fresh["frame_embeddings"], token_embeddings=fresh["token_embeddings"])
        pytest.fail(f"{path} was missing and is written; look at it and commit it")
    written = np.load(path)
    for name in ("frame_embeddings", "token_embeddings"):
        assert np.abs(fresh[name] - written[name]).max() < 1e-6


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_sixteen_bit_weights_are_widened_not_rounded_again(
    tiny: Tiny, dtype: str, tmp_path: Path, no_torch: None
) -> None:
    """A 16-bit checkpoint exports with the same closeness to its own reference, and near its fp32 twin."""
    half = export(tiny("siglip", dtype=dtype), tmp_path / "half")
    full = export(tiny("siglip"), tmp_path / "full")
    assert all(row.max_abs < 1e-6 for row in half.manifest.parity)
    name = "frame_embeddings"
    cosines = (np.load(half.file("golden.npz"))[name] * np.load(full.file("golden.npz"))[name]).sum(axis=1)
    assert cosines.min() > 0.999
    assert half.manifest.tower != full.manifest.tower


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_transformers_reads_sixteen_bit_weights_as_we_do(tiny: Tiny, dtype: str, tmp_path: Path) -> None:
    """Live parity holds for fp16 and bf16 shards."""
    pytest.importorskip("transformers")
    made = export(tiny("clip", dtype=dtype, shards=3), tmp_path / "bundle")
    assert made.manifest.parity[1].reference.startswith("transformers ")
    assert all(row.max_abs < 1e-6 for row in made.manifest.parity)


@pytest.mark.torch
def test_the_reference_puts_the_libraries_voice_back(tiny: Tiny) -> None:
    """Transformers is as talkative after the proof as before."""
    transformers = pytest.importorskip("transformers")
    before = transformers.utils.logging.get_verbosity()
    checkpoint = Checkpoint.open(tiny("siglip"))
    model = describe(checkpoint)
    reference = TransformersReference(checkpoint, clip=False, pixels=model.image.pixels)
    reference.embed_tokens(np.ones((1, 12), dtype=np.int64))
    assert transformers.utils.logging.get_verbosity() == before
    assert "torch" in sys.modules
