"""Bundles appear whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from overflight.export import assemble, graph
from overflight.export.assemble import export
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import BundleError, EngineError, MissingError, OverflightError, UsageError

Tiny = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_torch")


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_bundle_holds_what_it_promises(tiny: Tiny, tmp_path: Path) -> None:
    """Towers, tokenizer, golden vectors and a manifest that verifies."""
    made = export(tiny("siglip"), tmp_path / "bundle", name="tiny")
    opened = Bundle.open(tmp_path / "bundle")
    opened.verify()
    assert sorted(opened.manifest.files) == ["golden.npz", "image.onnx", "text.onnx", "tokenizer/tokenizer.json"]
    assert opened.manifest == made.manifest
    manifest = opened.manifest
    assert (manifest.name, manifest.family, manifest.activation, manifest.width) == ("tiny", "siglip", "sigmoid", 16)
    assert (manifest.resize.side, manifest.resize.filter, manifest.resize.fit) == (30, "bilinear", "squash")
    assert (manifest.tokenising.kind, manifest.tokenising.context, manifest.tokenising.vocabulary) == ("siglip", 12, 61)
    assert [(row.tower, row.samples) for row in manifest.parity] == [("image", 3), ("text", 3)]
    assert left(tmp_path) == ["bundle"]


def test_clip_is_judged_by_softmax(tiny: Tiny, tmp_path: Path) -> None:
    """CLIP has no bias, and its scores are shares."""
    manifest = export(tiny("clip"), tmp_path / "bundle").manifest
    assert (manifest.family, manifest.activation, manifest.logit_bias) == ("clip", "softmax", 0.0)
    assert manifest.name == "clip"


def test_golden_vectors_hold_inputs_and_unit_embeddings(tiny: Tiny, tmp_path: Path) -> None:
    """golden.npz is what verify replays; three rows of tokens of different length, all valid ids."""
    golden = np.load(export(tiny("siglip"), tmp_path / "bundle").file("golden.npz"))
    assert golden["frames"].shape == (3, 30, 30, 3)
    assert golden["frames"].dtype == np.uint8
    assert golden["tokens"].shape == (3, 12)
    assert golden["tokens"].dtype == np.int64
    assert [int((row == 1).sum()) for row in golden["tokens"]] == [9, 7, 1]
    assert 1 <= golden["tokens"].min() <= golden["tokens"].max() < 61
    for name in ("frame_embeddings", "token_embeddings"):
        assert np.allclose(np.linalg.norm(golden[name], axis=1), 1, atol=1e-6)


def test_a_bundle_is_replaced_only_on_request_and_whole(tiny: Tiny, tmp_path: Path) -> None:
    """Without --replace the old bundle stays; with it, nothing of the old one is left."""
    export(tiny("siglip"), tmp_path / "bundle")
    (tmp_path / "bundle" / "labels").mkdir()
    with pytest.raises(UsageError, match="exists; give another name, or --replace"):
        export(tiny("clip"), tmp_path / "bundle")
    assert Bundle.open(tmp_path / "bundle").manifest.family == "siglip"
    export(tiny("clip"), tmp_path / "bundle", replace=True)
    assert Bundle.open(tmp_path / "bundle").manifest.family == "clip"
    assert not (tmp_path / "bundle" / "labels").exists()
    assert left(tmp_path) == ["bundle"]


def test_replacing_works_where_the_kernel_cannot_swap(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without renameat2 two renames do."""
    monkeypatch.setattr(assemble, "_swap", lambda one, other: False)
    export(tiny("siglip"), tmp_path / "bundle")
    export(tiny("clip"), tmp_path / "bundle", replace=True)
    assert Bundle.open(tmp_path / "bundle").manifest.family == "clip"
    assert left(tmp_path) == ["bundle"]


def test_a_swap_is_one_step(tmp_path: Path) -> None:
    """Two directories change places; a place that is missing is an error, not a loss."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert assemble._swap(tmp_path / "one", tmp_path / "other")
    assert left(tmp_path / "one") == ["other"]
    assert left(tmp_path / "other") == ["one"]
    with pytest.raises(OSError, match="No such file"):
        assemble._swap(tmp_path / "one", tmp_path / "absent")


@pytest.mark.parametrize("made", ["file", "directory"])
def test_what_is_no_bundle_is_never_replaced(tiny: Tiny, tmp_path: Path, made: str) -> None:
    """--replace with a home directory by mistake deletes nothing."""
    target = tmp_path / "home"
    if made == "file":
        target.write_text("diary")
    else:
        target.mkdir()
        (target / "diary").write_text("diary")
    with pytest.raises(UsageError, match="exists but is not a bundle"):
        export(tiny("siglip"), target, replace=True)
    assert target.exists()


def test_a_failed_proof_leaves_the_old_bundle_and_nothing_else(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step before the renaming fails: as if nothing had been tried."""
    export(tiny("siglip"), tmp_path / "bundle")
    before = Bundle.open(tmp_path / "bundle").sha256

    def fail(*_: object) -> None:
        raise EngineError("no")

    monkeypatch.setattr(assemble, "prove", fail)
    with pytest.raises(EngineError):
        export(tiny("clip"), tmp_path / "bundle", replace=True)
    assert Bundle.open(tmp_path / "bundle").sha256 == before
    assert left(tmp_path) == ["bundle"]


def test_a_checkpoint_without_tokenizer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    """Texts could not be embedded; nothing is left."""
    checkpoint = tiny("siglip")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(MissingError, match=r"put spiece\.model or tokenizer\.json next to the weights"):
        export(checkpoint, tmp_path / "bundle")
    assert left(tmp_path) == []


def test_a_full_disk_leaves_nothing(tiny: Tiny, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A write that fails half-way becomes one line, and the half is gone."""
    checkpoint = tiny("siglip")
    request.getfixturevalue("small_disk")
    with pytest.raises(OverflightError, match="nothing was left behind"):
        export(checkpoint, tmp_path / "bundle")
    assert left(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tiny: Tiny, tmp_path: Path) -> None:
    """A parent that is a file is said to be one."""
    (tmp_path / "file").touch()
    with pytest.raises(OverflightError, match="file"):
        export(tiny("siglip"), tmp_path / "file" / "bundle")


def test_weights_outside_the_graph_are_part_of_the_bundle(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large tower's weights lie next to it, are proven with it, and one flipped byte there is the tower's."""
    monkeypatch.setattr(graph, "EXTERNAL_ABOVE_BYTES", 10_000)
    export(tiny("siglip"), tmp_path / "bundle")
    opened = Bundle.open(tmp_path / "bundle")
    assert {"image.onnx.data", "text.onnx.data"} < set(opened.manifest.files)
    opened.verify()
    raw = bytearray((tmp_path / "bundle" / "image.onnx.data").read_bytes())
    raw[5000] ^= 1
    (tmp_path / "bundle" / "image.onnx.data").write_bytes(raw)
    with pytest.raises(BundleError, match=r"image\.onnx\.data: SHA-256 is"):
        Bundle.open(tmp_path / "bundle").file("image.onnx")


def test_a_bundle_can_be_exported_again_from_a_moved_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    """The same weights give the same tower and the same graphs, so label banks stay good."""
    checkpoint = tiny("siglip")
    one = export(checkpoint, tmp_path / "one").manifest
    shutil.copytree(checkpoint, tmp_path / "moved")
    other = export(tmp_path / "moved", tmp_path / "other").manifest
    assert one.tower == other.tower
    assert one.files == other.files
