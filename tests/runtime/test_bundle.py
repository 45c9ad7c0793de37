"""Bundles: torn, foreign and damaged ones are named; whole ones open.

Covers: runtime/json_input.py.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from overflight.runtime.bundle import MANIFEST, Bundle, seal
from overflight.runtime.errors import BundleError, UsageError


@pytest.fixture
def copy(colour_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(colour_bundle.directory, tmp_path / "bundle"))


def test_a_whole_bundle_opens_and_verifies(colour_bundle: Bundle) -> None:
    """What was sealed verifies."""
    Bundle.open(colour_bundle.directory).verify()


def test_one_flipped_byte_is_found(copy: Path) -> None:
    """The engine never loads a damaged graph."""
    graph = copy / "image.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BundleError, match=r"image\.onnx: SHA-256 is .*damaged"):
        Bundle.open(copy).file("image.onnx")


def test_a_missing_file_makes_a_torn_bundle(copy: Path) -> None:
    """A file that the manifest names and the disk lacks is an error, not a surprise later."""
    (copy / "image.onnx").unlink()
    with pytest.raises(BundleError, match="torn"):
        Bundle.open(copy).verify()


def test_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    """A wrong path is a missing part."""
    with pytest.raises(UsageError, match="overflight export"):
        Bundle.open(tmp_path)


@pytest.mark.parametrize(
    "manifest", [b"", b"{", b"[]", b'{"schema": 99}', b'{"schema": 1}', b"\xff\xfe", b'{"schema": "1"}']
)
def test_a_torn_manifest_is_refused(copy: Path, manifest: bytes) -> None:
    """Whatever lies where the manifest should be, the answer is one line."""
    (copy / MANIFEST).write_bytes(manifest)
    with pytest.raises(BundleError, match="manifest"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "labels/../../outside"])
def test_a_file_outside_the_bundle_is_refused(copy: Path, name: str) -> None:
    """A manifest cannot make the runtime read elsewhere."""
    manifest = msgspec.structs.replace(Bundle.open(copy).manifest, files={name: "0" * 64})
    (copy / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    with pytest.raises(BundleError, match="leads out"):
        Bundle.open(copy)


def test_sealing_names_every_file(copy: Path) -> None:
    """What lies in the directory is hashed, in folders too."""
    (copy / "labels").mkdir()
    (copy / "labels" / "a.safetensors").write_bytes(b"x")
    sealed = seal(copy, Bundle.open(copy).manifest)
    assert set(sealed.manifest.files) == {"image.onnx", "labels/a.safetensors"}
