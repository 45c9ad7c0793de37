"""Where a still keeps its tags: the Exif block and the XMP packets of each file format."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from overflight.runtime.boxes import MAX_BOXES, boxes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Content = bytes | memoryview

EXIF, XMP, MORE_XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00", b"http://ns.adobe.com/xmp/extension/\x00"
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
MAX_XMP_BYTES = 2 << 20  # of all packets of one file; what cameras write takes less than 100 kB
MAX_PIECES = 200_000  # segments, chunks or boxes of one file that are looked at
_JP2_EXIF, _JP2_XMP = b"JpgTiffExif->JP2", bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_MARKS = ((b"<x:xmpmeta", b"</x:xmpmeta>"), (b"<rdf:RDF", b"</rdf:RDF>"))
_HEAD_BYTES = 256 * 1024


@dataclass
class TagBlocks:
    """The blocks of one still: ``exif`` is a TIFF structure, each XMP packet is XML."""

    exif: Content = b""
    xmp: list[bytes] = field(default_factory=list)
    left_bytes: int = MAX_XMP_BYTES

    def spend(self, size: int) -> None:
        """Count bytes that are copied or inflated. Raises ValueError beyond what one file may take."""
        self.left_bytes -= size + 1024  # a packet costs something, however small
        if self.left_bytes < 0:
            raise ValueError("more tags than a camera writes")

    def add_xmp(self, packet: Content) -> None:
        """Keep one packet. Raises ValueError beyond what one file may take."""
        self.spend(len(packet))
        self.xmp.append(bytes(packet))


def find_tag_blocks(content: memoryview) -> TagBlocks:
    """Find the Exif block and XMP packets of a JPEG, TIFF, DNG, PNG, WebP, HEIF, AVIF or JPEG 2000 file.

    A file whose structure is damaged yields what was found before the damage; where that is nothing, its first 256 kB
    are searched for the marks of both.
    """
    blocks = TagBlocks()
    read = _reader(bytes(content[:12]))
    if read is not None:
        with suppress(struct.error, ValueError, IndexError, KeyError, zlib.error, OverflowError):  # damaged
            read(content, blocks)
    if not blocks.exif and not blocks.xmp:
        _search(bytes(content[:_HEAD_BYTES]), blocks)
    return blocks


def _reader(head: bytes) -> Callable[[memoryview, TagBlocks], None] | None:
    if head[:2] == b"\xff\xd8":
        return _jpeg
    if head[:4] in TIFF_STARTS:
        return _tiff
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return _png
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp
    if head[4:8] == b"ftyp":
        return _heif
    return _jp2 if head[4:8] == b"jP  " else None


def _search(head: bytes, blocks: TagBlocks) -> None:
    start = head.find(EXIF)
    if start >= 0:
        blocks.exif = head[start + 6 :]
    for begin_mark, end_mark in _MARKS:
        begin = head.find(begin_mark)
        end = head.find(end_mark, begin)
        if 0 <= begin < end and not blocks.xmp:
            blocks.xmp.append(head[begin : end + len(end_mark)])


def _tiff(content: memoryview, blocks: TagBlocks) -> None:
    blocks.exif = content  # its XMP is a tag


def _jpeg(content: memoryview, blocks: TagBlocks) -> None:
    place, pieces = 2, dict[int, bytes]()
    try:
        for _ in range(MAX_PIECES):
            if place + 4 > len(content) or content[place] != 0xFF:
                break
            marker = content[place + 1]
            if marker in {0xD8, 0xFF, 0x01}:  # a start, a fill byte or a marker without a length
                place += 1 if marker == 0xFF else 2
                continue
            if marker in {0xD9, 0xDA}:
                break
            (length,) = struct.unpack_from(">H", content, place + 2)
            if marker == 0xE1:
                _jpeg_segment(bytes(content[place + 4 : place + 2 + length]), blocks, pieces)
            place += 2 + length
    finally:
        if pieces:
            blocks.add_xmp(b"".join(pieces[offset] for offset in sorted(pieces)))


def _jpeg_segment(segment: bytes, blocks: TagBlocks, pieces: dict[int, bytes]) -> None:
    if segment.startswith(EXIF[:5]) and not blocks.exif:
        blocks.exif = segment[6:]
    elif segment.startswith(XMP):
        blocks.add_xmp(segment[len(XMP) :])
    elif segment.startswith(MORE_XMP):
        (offset,) = struct.unpack_from(">I", segment, len(MORE_XMP) + 36)  # behind a digest and the whole length
        if offset < MAX_XMP_BYTES and len(pieces) < MAX_XMP_BYTES >> 10:
            pieces[offset] = segment[len(MORE_XMP) + 40 :]


def _png(content: memoryview, blocks: TagBlocks) -> None:
    place = 8
    for _ in range(MAX_PIECES):
        if place + 12 > len(content):
            return
        length, kind = struct.unpack_from(">I4s", content, place)
        data = content[place + 8 : place + 8 + length]
        match kind:
            case b"eXIf":
                blocks.exif = _without_mark(data)
            case b"iTXt" if bytes(data[:18]) == b"XML:com.adobe.xmp\x00":
                body = bytes(data[20:]).split(b"\x00", 2)[2]  # behind its flags, a language and a translated name
                blocks.add_xmp(_inflated(body, blocks) if data[18] else body)
            case b"zTXt" | b"tEXt" if bytes(data[:17]) == b"Raw profile type ":
                _raw_profile(bytes(data), blocks)
            case b"IEND":
                return
        place += 12 + length


def _raw_profile(chunk: bytes, blocks: TagBlocks) -> None:
    """Read ImageMagick's form: the profile in hexadecimal digits behind its name and length."""
    _, _, body = chunk.partition(b"\x00")
    text = _inflated(body[1:], blocks) if body[:1] == b"\x00" else body
    raw = bytes.fromhex("".join(text.decode("ascii", "ignore").split()[2:]))
    if raw.startswith(EXIF):
        blocks.exif = raw[6:]
    elif raw.startswith(XMP):
        blocks.add_xmp(raw[len(XMP) :])


def _inflated(data: bytes, blocks: TagBlocks) -> bytes:
    whole = zlib.decompressobj().decompress(data, max(1, blocks.left_bytes))
    blocks.spend(len(whole))
    return whole


def _webp(content: memoryview, blocks: TagBlocks) -> None:
    place = 12
    for _ in range(MAX_PIECES):
        if place + 8 > len(content):
            return
        kind, length = struct.unpack_from("<4sI", content, place)
        data = content[place + 8 : place + 8 + length]
        if kind == b"EXIF":
            blocks.exif = _without_mark(data)
        elif kind == b"XMP ":
            blocks.add_xmp(data)
        place += 8 + length + length % 2


def _without_mark(data: memoryview) -> memoryview:
    return data[6:] if bytes(data[:6]) == EXIF else data


def _jp2(content: memoryview, blocks: TagBlocks) -> None:
    for kind, box in boxes(content):
        if kind == b"uuid" and bytes(box[:16]) == _JP2_EXIF:
            blocks.exif = _without_mark(box[16:])
        elif kind == b"uuid" and bytes(box[:16]) == _JP2_XMP:
            blocks.add_xmp(box[16:])


def _heif(content: memoryview, blocks: TagBlocks) -> None:
    """Follow the item tables of ISO/IEC 23008-12: which items are Exif and XMP, and where their bytes lie."""
    meta = next((box for kind, box in boxes(content) if kind == b"meta"), None)
    if meta is None:
        return
    inner = dict(boxes(meta, 4))
    kinds = dict(_item_kinds(inner.get(b"iinf", memoryview(b""))))
    for item, extents in _item_places(inner[b"iloc"]):
        if item not in kinds:
            continue
        blocks.spend(sum(length for _, length in extents))
        data = b"".join(bytes(content[start : start + length]) for start, length in extents)
        if kinds[item] == b"Exif":
            (skip,) = struct.unpack_from(">I", data)
            blocks.exif = data[4 + skip :]
        else:
            blocks.add_xmp(data)


def _item_kinds(iinf: memoryview) -> Iterator[tuple[int, bytes]]:
    for kind, infe in boxes(iinf, 6 if iinf and iinf[0] == 0 else 8):
        if kind != b"infe" or infe[0] < 2:
            continue
        wide = infe[0] > 2
        (item,) = struct.unpack_from(">I" if wide else ">H", infe, 4)
        name = bytes(infe[10 if wide else 8 :])
        if name[:4] == b"Exif" or (name[:4] == b"mime" and b"application/rdf+xml" in name):
            yield item, name[:4]


def _item_places(iloc: memoryview) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    version, sizes = iloc[0], struct.unpack_from(">BB", iloc, 4)
    offset_size, length_size, base_size = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
    index_size = sizes[1] & 15 if version else 0
    wide = version == 2
    (count,) = struct.unpack_from(">I" if wide else ">H", iloc, 6)
    place = 10 if wide else 8

    def take(size: int) -> int:
        nonlocal place
        if place + size > len(iloc):
            raise ValueError("the item table ends too early")
        place += size
        return int.from_bytes(iloc[place - size : place], "big")

    parts = 0
    for _ in range(count):
        item, method = take(4 if wide else 2), take(2) & 15 if version else 0
        take(2)  # the data reference: this file
        base = take(base_size)
        extents = []
        parts += 1 + (number := take(2))  # with sizes of 0 a table of a few bytes states any number of them
        if parts > MAX_BOXES:
            raise ValueError("more items than a picture has")
        for _ in range(number):
            take(index_size)
            extents.append((base + take(offset_size), take(length_size)))
        if method == 0:
            yield item, extents
