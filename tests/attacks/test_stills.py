"""Stills made to stall or fill their reader: pixels and tags are read within bounds of bytes, time and memory.

Covers: runtime/pose/tag_blocks.py, runtime/boxes.py.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.pose.tag_blocks import MAX_XMP_BYTES
from overflight.runtime.sources.image import MAX_BYTES, read_image

pytest.importorskip("cv2")
# Both readers of a still: its pixels and its tags. A refusal of either is an answer.
READ = """
import os
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = "128000000"
from pathlib import Path
from overflight.runtime.errors import SourceError
from overflight.runtime.pose.exif import read_tags
from overflight.runtime.sources.image import read_image
tags = read_tags(Path(sys.argv[1]))
print("tags", len(tags.xmp))
try:
    print("picture", read_image(sys.argv[1]).pixels.shape)
except SourceError as error:
    print("refused", str(error)[-300:])
"""
PNG, JPEG, XMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"http://ns.adobe.com/xap/1.0/\0"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return PNG + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(bytes(4))) + chunk(b"IEND", b"")


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


def tiff(entries: int, size: int) -> bytes:
    """Return a TIFF whose tags all point to the same bytes."""
    at = 8 + 2 + 12 * entries
    rows = b"".join(struct.pack("<HHII", 0x8000 + n, 2, size, at) for n in range(entries))
    return b"II*\0" + struct.pack("<IH", 8, entries) + rows + b"a" * size


def heif(brand: bytes, places: bytes, length: int) -> bytes:
    infe = box(b"infe", b"\2\0\0\0" + struct.pack(">HH4s", 1, 0, b"Exif"))
    table = box(b"iinf", bytes(4) + struct.pack(">H", 1) + infe)
    meta = box(b"meta", bytes(4) + table + box(b"iloc", places))
    return box(b"ftyp", brand + bytes(4)) + meta + bytes(length)


def same_extents(count: int, length: int) -> bytes:
    """Return an item table with one item of the same bytes many times over."""
    return b"\0\0\0\0\x44\0" + struct.pack(">HHHH", 1, 1, 0, count) + struct.pack(">II", 0, length) * count


def huge(kind: str) -> bytes:
    """Return the header of a picture of 60,000 x 60,000 pixels, and little else."""
    side = 60_000
    match kind:
        case "png":
            return PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
        case "jpg":
            frame = struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0"
            return JPEG + segment(0xC0, frame) + segment(0xDA, b"\1\1\0\0\x3f\0") + bytes(100) + b"\xff\xd9"
        case "bmp":
            sizes = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            return b"BM" + struct.pack("<IHHI", 154, 0, 0, 54) + sizes + bytes(100)
        case "ppm":
            return b"P6\n%d %d\n255\n" % (side, side) + bytes(100)
        case "hdr":
            return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (side, side) + bytes(100)
        case _:
            return b"\x59\xa6\x6a\x95" + struct.pack(">IIIIIII", side, side, 24, 0, 1, 0, 0) + bytes(100)


def long_address(attributes: int) -> bytes:
    names = b" ".join(b'a:b%d="1"' % n for n in range(attributes))
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:a="' + b"u" * 900_000 + b'" ' + names + b"/>"


FILES: dict[str, Callable[[], bytes]] = {
    "inflated-packets.png": lambda: png(
        *[chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(16 << 20)))] * 500
    ),
    "inflated-profiles.png": lambda: png(
        *[chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(bytes(16 << 20)))] * 500
    ),
    "small-chunks.png": lambda: PNG + chunk(b"IDAT", b"") * 2_000_000,
    "fill-bytes.jpg": lambda: JPEG + b"\xff" * 4_000_000,
    "empty-segments.jpg": lambda: JPEG + segment(0xE3, b"") * 2_000_000,
    "packets.jpg": lambda: JPEG + segment(0xE1, XMP + b"<a/>" * 16_000) * 1_000,
    "long-address.jpg": lambda: JPEG + segment(0xE1, XMP + long_address(10)[:65_000]),
    "long-address.png": lambda: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + long_address(60_000))),
    "scans.jpg": lambda: JPEG + segment(0xDA, b"\1\1\0\0\x3f\0") * 5_000 + b"\xff\xd9",
    "same-strings.tif": lambda: tiff(5_000, 15 << 20),
    "same-extents.heic": lambda: heif(b"heic", same_extents(10_000, 1_000_000), 1_000_000),
    "empty-extents.heic": lambda: heif(
        b"heic", b"\0\0\0\0\0\0" + struct.pack(">H", 60_000) + struct.pack(">HHH", 2, 0, 65_535) * 60_000, 0
    ),
    "empty-extents.avif": lambda: heif(
        b"avif", b"\0\0\0\0\0\0" + struct.pack(">H", 60_000) + struct.pack(">HHH", 2, 0, 65_535) * 60_000, 0
    ),
    "boxes.heic": lambda: box(b"ftyp", b"heic" + bytes(4)) + box(b"free", b"") * 2_000_000,
    "boxes.jp2": lambda: box(b"jP  ", b"\r\n\x87\n") + box(b"free", b"") * 2_000_000,
    "chunks.webp": lambda: b"RIFF\xff\xff\xff\x7fWEBP" + b"XMP \0\0\0\0" * 2_000_000,
} | {f"huge.{kind}": lambda kind=kind: huge(kind) for kind in ("png", "jpg", "bmp", "ppm", "hdr", "ras")}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_hostile_still_is_answered_soon_and_in_little_memory(
    name: str, tmp_path: Path, limited: Callable[..., Any]
) -> None:
    """Whatever it says of itself: pixels and tags within 20 s of processor time and a few times its size."""
    content = FILES[name]()
    (tmp_path / name).write_bytes(content)
    ended = limited(READ, str(tmp_path / name))
    assert ended.code == 0, ended.said[-500:]
    assert ended.peak_mb < 200 + 2.5 * len(content) / 1e6, ended.peak_mb


def test_what_is_not_a_regular_file_is_refused_by_name(tmp_path: Path) -> None:
    """A pipe in a folder of stills blocks nobody, and what is too large is not read."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(SourceError, match="a named pipe"):
        read_image(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with pytest.raises(SourceError, match="a device"):
        read_image(tmp_path / "device.jpg")
    (tmp_path / "large.jpg").touch()
    os.truncate(tmp_path / "large.jpg", MAX_BYTES + 1)
    with pytest.raises(SourceError, match="expected at most"):
        read_image(tmp_path / "large.jpg")


def test_the_first_packets_are_kept_when_there_are_too_many(tmp_path: Path) -> None:
    """A still with a depth map of megabytes behind its position keeps the position."""
    from overflight.runtime.pose.exif import read_tags

    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:d="http://www.dji.com/drone-dji/1.0/" d:GpsLatitude="47.1"/>'
    more = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(32) + struct.pack(">II", 0, 0) + bytes(60_000))
    pieces = [more[:75] + struct.pack(">I", n * 60_000) + more[79:] for n in range(100)]
    path = tmp_path / "depth.jpg"
    path.write_bytes(JPEG + segment(0xE1, XMP + packet) + b"".join(pieces) + b"\xff\xd9")
    assert path.stat().st_size > MAX_XMP_BYTES
    assert list(read_tags(path).xmp.values()) == ["47.1"]
