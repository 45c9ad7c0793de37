"""H.264 and H.265 pictures from RTP packets (RFC 6184, RFC 7798): whole pictures, and where to start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.runtime.sources.rtsp.rtp import RtpPacket

Codec = Literal["h264", "hevc"]

_START_CODE = b"\x00\x00\x00\x01"
_RECOVERY_POINT = 6
MOST_PICTURE_BYTES = 16 << 20  # coded; a sender without markers whose clock stands still would fill the memory


@dataclass(frozen=True, slots=True)
class CodedPicture:
    """One picture's bytes with start codes. ``damaged`` where packets of it are missing, ``gap`` before it.

    ``key`` needs no other picture; from a ``recovery`` point, after so many further pictures, all is whole again.
    """

    data: bytes
    timestamp: int
    arrived_ns: int
    key: bool
    recovery: int | None
    damaged: bool
    gap: bool


@dataclass
class _Unit:
    timestamp: int
    arrived_ns: int
    gap: bool = False
    damaged: bool = False
    nals: list[bytes] = field(default_factory=list)
    size: int = 0


class Assembler:
    """Collects packets until the one that ends a picture, or until the next picture begins."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._unit: _Unit | None = None
        self._fragments: list[bytes] | None = None
        self._gap = False  # nothing is left of the picture before

    def put(self, packet: RtpPacket) -> Iterator[CodedPicture]:
        """Take the next packet and yield the pictures that are complete."""
        unit = self._unit
        if unit is not None and packet.timestamp != unit.timestamp:
            # Its marker is missing: it was lost, or the sender sets none.
            unit.damaged |= packet.lost or self._fragments is not None
            yield from self._finish()
            unit = None
        if unit is None:
            unit = self._unit = _Unit(packet.timestamp, packet.arrived_ns, gap=packet.lost, damaged=packet.lost)
        elif packet.lost:
            unit.damaged, self._fragments = True, None
        unit.size += len(packet.payload)
        if unit.size > MOST_PICTURE_BYTES:
            unit.damaged, self._fragments = True, None
            unit.nals.clear()
            if packet.marker:
                yield from self._finish()
            return
        (self._h264 if self._codec == "h264" else self._hevc)(packet.payload, unit)
        if packet.marker:
            unit.damaged |= self._fragments is not None
            yield from self._finish()

    def _finish(self) -> Iterator[CodedPicture]:
        unit, self._unit, self._fragments = self._unit, None, None
        if unit is None:
            return
        if not unit.nals:
            self._gap = True
            return
        unit.gap, self._gap = unit.gap or self._gap, False
        kinds = {_kind(nal, self._codec) for nal in unit.nals}
        key = 5 in kinds if self._codec == "h264" else any(16 <= kind <= 23 for kind in kinds)
        recovery = next((count for nal in unit.nals if (count := _recovery(nal, self._codec)) is not None), None)
        data = b"".join(_START_CODE + nal for nal in unit.nals)
        yield CodedPicture(data, unit.timestamp, unit.arrived_ns, key, recovery, unit.damaged, unit.gap)

    def _h264(self, payload: bytes, unit: _Unit) -> None:
        kind = payload[0] & 31
        if 1 <= kind <= 23:
            unit.nals.append(payload)
        elif kind == 24:
            self._aggregated(payload[1:], unit)
        elif kind == 28 and len(payload) > 2:
            header = bytes([payload[0] & 0xE0 | payload[1] & 31])
            self._fragment(header, payload[1], payload[2:], unit)
        else:
            unit.damaged = True  # interleaved modes, which no camera sends

    def _hevc(self, payload: bytes, unit: _Unit) -> None:
        if len(payload) < 3:
            return
        kind = payload[0] >> 1 & 63
        if kind < 48:
            unit.nals.append(payload)
        elif kind == 48:
            self._aggregated(payload[2:], unit)
        elif kind == 49:
            header = bytes([payload[0] & 0x81 | (payload[2] & 63) << 1, payload[1]])
            self._fragment(header, payload[2], payload[3:], unit)
        else:
            unit.damaged = True

    def _aggregated(self, rest: bytes, unit: _Unit) -> None:
        at = 0
        while at + 2 < len(rest):
            start, at = at + 2, at + 2 + int.from_bytes(rest[at : at + 2], "big")
            if at > len(rest):
                unit.damaged = True  # it states more bytes than the packet has
            elif start < at:
                unit.nals.append(rest[start:at])

    def _fragment(self, header: bytes, flags: int, data: bytes, unit: _Unit) -> None:
        if flags & 0x80:
            self._fragments = [header, data]
        elif self._fragments is None:
            unit.damaged = True  # its beginning is missing
            return
        else:
            self._fragments.append(data)
        if flags & 0x40:
            unit.nals.append(b"".join(self._fragments))
            self._fragments = None


def _kind(nal: bytes, codec: Codec) -> int:
    return nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63


def _recovery(nal: bytes, codec: Codec) -> int | None:
    """The count of a recovery point message, None where the unit is none."""
    if _kind(nal, codec) != (6 if codec == "h264" else 39):
        return None
    at = 1 if codec == "h264" else 2
    while at + 2 < len(nal):
        kind, size = nal[at], nal[at + 1]
        if kind == 255 or size == 255:
            return None
        if kind == _RECOVERY_POINT:
            bits = int.from_bytes(nal[at + 2 : at + 6].ljust(4, b"\0"), "big")
            zeros = 32 - bits.bit_length()
            value = (bits >> max(0, 31 - 2 * zeros)) - 1 if zeros < 16 else 0
            return value if codec == "h264" else (value + 1) // 2
        at += 2 + size
    return None
