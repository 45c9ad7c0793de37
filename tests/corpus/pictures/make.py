"""Makes the corpus of stills again: damage, trailers, depths, pages and orientations.

    python tests/corpus/pictures/make.py [FOLDER]

Needs Pillow, tifffile and NumPy; fetches nothing.
"""

from __future__ import annotations

import io
import sys
import zlib
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 96, 64
MP4 = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\x01\0mdat" + bytes(range(200)) + b"\xff\xda\xff\xd9" * 10

# 8 x 8 grey pixels, whose only block has four runs of 15 zeros and a value: its last lies behind the 64th.
LONG_BLOCK = bytes.fromhex(
    "ffd8ffdb004300" + "01" * 64 + "ffc0000b080008000801011100" + "ffc400140001" + "00" * 16
    + "ffc40015100002" + "00" * 14 + "f100" + "ffda0008010100003f00124fffd9"
)  # fmt: skip


def scene() -> NDArray[np.uint8]:
    """Four quarters: red, green, blue and white, with a little texture."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    half, middle = HEIGHT // 2, WIDTH // 2
    picture[:half, :middle] = (200, 20, 20)
    picture[:half, middle:] = (20, 200, 20)
    picture[half:, :middle] = (20, 20, 200)
    picture[half:, middle:] = (220, 220, 220)
    noise = np.random.default_rng(0).integers(-12, 13, picture.shape)
    shown: NDArray[np.uint8] = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return shown


def jpeg(picture: NDArray[np.uint8] | None = None, **options: object) -> bytes:
    """Encode as JPEG."""
    out = io.BytesIO()
    Image.fromarray(scene() if picture is None else picture).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def png(picture: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Encode as PNG; 16-bit colour chunk by chunk, for Pillow writes none."""
    height, width = picture.shape[:2]
    colour, depth = 2 if picture.ndim == 3 else 0, picture.dtype.itemsize * 8
    rows = picture.astype(picture.dtype.newbyteorder(">"))
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def tiff(*pages: NDArray[np.generic]) -> bytes:
    """Encode pages as TIFF."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        for page in pages:
            writer.write(page, photometric="rgb" if page.ndim == 3 else "minisblack", metadata=None)
    return out.getvalue()


def hole(raw: bytes, share: float, length: int, fill: int = 0) -> bytes:
    """Overwrite part of a file, as a failing card leaves it."""
    at = int(len(raw) * share)
    return raw[:at] + bytes([fill]) * length + raw[at + length :]


def junk(raw: bytes) -> bytes:
    """Overwrite 512 bytes with noise."""
    at = int(len(raw) * 0.5)
    return raw[:at] + np.random.default_rng(1).bytes(512) + raw[at + 512 :]


def files() -> dict[str, bytes]:
    """Return every still of the corpus by its name."""
    whole = jpeg()
    progressive = jpeg(progressive=True)
    colour = scene()
    exif = {turned: _exif(turned) for turned in (3, 6, 8)}
    sixteen = colour.astype(np.uint16) * 257
    heat = np.linspace(7000, 8500, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    height = np.linspace(-3.5, 120, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.float32)
    missing = height.copy()
    missing[:8] = np.nan
    upright = png(colour)
    return {
        "whole.jpg": whole,
        "progressive.jpg": progressive,
        "grey.jpg": jpeg(colour[:, :, 0]),
        "trailer-zeros.jpg": whole + bytes(4096),
        "trailer-junk.jpg": whole + bytes(range(256)) * 8,
        "motion-photo.jpg": whole + MP4,
        "second-picture.jpg": whole + jpeg(colour[::2, ::2]),
        "preview-inside.jpg": jpeg(exif=_exif(1, jpeg(colour[::4, ::4]))),
        "turned-3.jpg": jpeg(np.rot90(colour, 2), exif=exif[3]),
        "turned-6.jpg": jpeg(np.rot90(colour, 1), exif=exif[6]),
        "turned-8.jpg": jpeg(np.rot90(colour, 3), exif=exif[8]),
        "cut-half.jpg": whole[: len(whole) // 2],
        "cut-last-byte.jpg": whole[:-1],
        "cut-behind-preview.jpg": jpeg(exif=_exif(1, jpeg(colour[::4, ::4])))[:-200],
        "zero-tail.jpg": whole[: len(whole) // 2] + bytes(len(whole) // 2),
        "zero-sector.jpg": hole(whole, 0.6, 256),
        "junk-sector.jpg": junk(whole),
        "progressive-hole.jpg": hole(progressive, 0.7, 128),
        "whole.png": upright,
        "trailer.png": upright + b"tail" * 100,
        "deep.png": png(sixteen),
        "deep-12-bit.png": png((sixteen >> 4).astype(np.uint16)),
        "long-block.jpg": LONG_BLOCK,
        "cut.png": upright[:-20],
        "flipped-bit.png": hole(upright, 0.5, 1, upright[len(upright) // 2] ^ 1),
        "wrong-text-checksum.png": upright[:33] + hole(chunk(b"tEXt", b"a\0b"), 0.99, 1, 7) + upright[33:],
        "deep.tif": tiff(sixteen),
        "heat.tif": tiff(heat),
        "height.tif": tiff(height),
        "height-missing.tif": tiff(missing),
        "nothing.tif": tiff(np.full((HEIGHT, WIDTH), np.nan, np.float32)),
        "unit-float.tif": tiff((colour / 255).astype(np.float32)),
        "two-pages.tif": tiff(colour, colour[::-1]),
        "preview-first.tif": tiff(colour[::4, ::4].copy(), colour),
        "heic-brand.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "heic-named.jpg": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(64),
        "text.jpg": b"not a picture at all",
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
    }


def _exif(turned: int, preview: bytes = b"") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turned
    raw = bytes(exif.tobytes())
    return raw + preview  # behind the tags, where a reader of marks may meet it


def make(folder: Path) -> None:
    """Write the corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files().items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "made")
