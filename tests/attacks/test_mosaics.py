"""Hostile mosaics cannot stall or fill their reader, whatever their directories and pieces state.

Covers: runtime/geotiff/layout.py
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.geotiff.raster import Raster

pytest.importorskip("tifffile")
pytest.importorskip("cv2")
_READ = """
import sys
from pathlib import Path
from overflight.runtime.errors import OverflightError
from overflight.runtime.sources.mosaic import Mosaic
try:
    mosaic = Mosaic(Path(sys.argv[1]), 32)
    print("read", sum(1 for _ in mosaic.frames()))
except OverflightError as error:
    print("refused", error)
"""


def tiff(size: tuple[int, int], piece: bytes = b"", **tags: int) -> bytes:
    """Return a TIFF file of one piece behind its directory: grey, uncompressed, one strip, unless ``tags`` say else."""
    width, height = size
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height, 279: len(piece)}
    values |= {int(code.removeprefix("t")): value for code, value in tags.items()}
    offset = 324 if 322 in values else 273
    values[offset] = 8 + 2 + 12 * (len(values) + 1) + 4
    entries = b"".join(struct.pack("<HHII", code, 4, 1, values[code]) for code in sorted(values))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + bytes(4) + piece


FILES: dict[str, Callable[[], bytes]] = {
    "rows": lambda: tiff((1, 0xFFFFFFFF), t279=0xFFFFFFFF),
    "columns": lambda: tiff((0xFFFFFFFF, 1), t279=0xFFFFFFFF),
    "pixels": lambda: tiff((0xFFFFFFFF, 0xFFFFFFFF), t279=0xFFFFFFFF),
    "long piece": lambda: tiff((64, 64), t259=8, t322=64, t323=64, t325=300_000_000),
}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_mosaic_costs_nothing(name: str, limited: Callable[..., Any], tmp_path: Path) -> None:
    """A file of 122 bytes that states 4,294,967,295 rows took minutes and gigabytes."""
    path = tmp_path / "mosaic.tif"
    path.write_bytes(FILES[name]())
    if name == "long piece":
        os.truncate(path, 300_001_000)
    ended = limited(_READ, str(path))
    assert "refused" in ended.said, ended.said
    assert ended.peak_mb < 200


def test_a_jpeg_tile_is_not_decoded_at_the_size_that_it_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile of 64 px whose JPEG states 65,500 px would take 12 GB."""
    simplejpeg = pytest.importorskip("simplejpeg")
    cv2 = pytest.importorskip("cv2")
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65_500, 65_500)
    path = tmp_path / "mosaic.tif"
    path.write_bytes(tiff((64, 64), bytes(jpeg), t259=7, t262=6, t277=3, t322=64, t323=64, t325=len(jpeg)))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("room was made for it"))
    with closing(Raster(path)) as raster, pytest.raises(SourceError, match="cannot be decoded"):
        raster.segment(0)
