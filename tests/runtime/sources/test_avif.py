"""AVIF pictures are shown turned as their file asks; Pillow is the reference.

Covers: runtime/boxes.py, runtime/sources/avif.py.
"""

from __future__ import annotations

import io

import numpy as np
import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.sources.avif import turn
from overflight.runtime.sources.image import decode_still

PIL = pytest.importorskip("PIL")
from PIL import Image, ImageOps, features  # noqa: E402 - behind its check

pytest.importorskip("cv2")
needs_writer = pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")


def picture(turned: int, **options: object) -> bytes:
    """Encode a slope of colours, which no turn leaves as it was; Pillow writes the turn as irot and imir."""
    down, across = np.mgrid[0:64, 0:96]
    colours = np.stack([2 * across, 3 * down, across + down], axis=2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turned
    written = io.BytesIO()
    Image.fromarray(colours).save(written, "AVIF", quality=95, exif=exif, **options)
    return written.getvalue()


@needs_writer
@pytest.mark.parametrize("turned", range(1, 9))
def test_a_picture_is_turned_as_its_file_asks(turned: int) -> None:
    """The eight orientations."""
    raw = picture(turned)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB"))
    read = decode_still(raw, "one.avif")[:, :, ::-1]
    assert read.shape == shown.shape
    assert np.abs(read.astype(int) - shown.astype(int)).mean() < 1


@needs_writer
def test_a_crop_and_damaged_tables_are_refused() -> None:
    """A picture that is not shown as its file asks is no picture."""
    raw = picture(6)
    assert b"irot" in raw
    pixels = np.zeros((2, 3, 3), np.uint8)
    with pytest.raises(ValueError, match="crop"):
        turn(pixels, raw.replace(b"irot", b"clap"))
    with pytest.raises(SourceError, match=r"one\.avif: "):
        decode_still(raw.replace(b"irot", b"clap"), "one.avif")
    with pytest.raises(ValueError, match="damaged"):
        turn(pixels, raw.replace(b"pitm", b"gone"))
    cut = raw.index(b"ipma") + 6
    with pytest.raises(ValueError, match="damaged"):
        turn(pixels, raw[:cut])
