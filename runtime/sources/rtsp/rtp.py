"""RTP: packets in order, with what was lost between them, and the sender's clock from RTCP (RFC 3550)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NTP_TO_UNIX_S = 2_208_988_800
_SENDER_REPORT = 200
_MOST_WAITING = 32  # packets out of order; after so many the missing one is lost
_WAIT_NS = 60_000_000  # and after so long


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet: ``marker`` ends a picture, ``lost`` says that packets before it are missing."""

    sequence: int
    timestamp: int
    marker: bool
    payload: bytes
    arrived_ns: int
    lost: bool = False

    @classmethod
    def parse(cls, raw: bytes, arrived_ns: int) -> RtpPacket | None:
        """Read a datagram; None for what is no RTP packet."""
        if len(raw) < 12 or raw[0] >> 6 != 2:
            return None
        start = 12 + 4 * (raw[0] & 15)
        if raw[0] & 16:  # a header extension
            if len(raw) < start + 4:
                return None
            start += 4 + 4 * int.from_bytes(raw[start + 2 : start + 4], "big")
        end = len(raw) - (raw[-1] if raw[0] & 32 else 0)
        if end <= start:
            return None
        sequence, timestamp = struct.unpack_from(">HI", raw, 2)
        return cls(sequence, timestamp, bool(raw[1] & 128), raw[start:end], arrived_ns)


class ReorderBuffer:
    """Packets as they arrive, in; in their order, out. A packet that is missing too long is lost."""

    def __init__(self) -> None:
        self._waiting: dict[int, RtpPacket] = {}
        self._next: int | None = None
        self.lost = 0  # packets, since the counter was last read

    def put(self, packet: RtpPacket) -> Iterator[RtpPacket]:
        """Take one packet and yield what is in order now."""
        if self._next is None:
            self._next = packet.sequence
        ahead = (packet.sequence - self._next) & 0xFFFF
        if ahead >= 0x8000:  # late or twice
            if ahead > 0xFFFF - 1000:
                return
            self._waiting.clear()  # the sender started again
            self._next, ahead = packet.sequence, 0
        self._waiting[packet.sequence] = packet
        yield from self._in_order(lost=False)
        while self._waiting and self._is_overdue(packet.arrived_ns):
            skipped = min((sequence - self._next) & 0xFFFF for sequence in self._waiting)
            self.lost += skipped
            self._next = (self._next + skipped) & 0xFFFF
            yield from self._in_order(lost=True)

    def _in_order(self, *, lost: bool) -> Iterator[RtpPacket]:
        assert self._next is not None
        while (packet := self._waiting.pop(self._next, None)) is not None:
            self._next = (self._next + 1) & 0xFFFF
            yield (
                packet
                if not lost
                else RtpPacket(
                    packet.sequence, packet.timestamp, packet.marker, packet.payload, packet.arrived_ns, lost=True
                )
            )
            lost = False

    def _is_overdue(self, now_ns: int) -> bool:
        oldest_ns = min(packet.arrived_ns for packet in self._waiting.values())
        return len(self._waiting) > _MOST_WAITING or now_ns - oldest_ns > _WAIT_NS


@dataclass(frozen=True, slots=True)
class SenderReport:
    """The sender's wall clock, since the epoch, at an RTP time stamp."""

    utc_ns: int
    timestamp: int

    @classmethod
    def parse(cls, raw: bytes) -> SenderReport | None:
        """Read the sender report of an RTCP packet, None where it has none."""
        if len(raw) < 20 or raw[0] >> 6 != 2 or raw[1] != _SENDER_REPORT:
            return None
        seconds, fraction, timestamp = struct.unpack_from(">III", raw, 8)
        if not seconds:
            return None
        return cls((seconds - _NTP_TO_UNIX_S) * 1_000_000_000 + (fraction * 1_000_000_000 >> 32), timestamp)


def receiver_report(own: int, sender: int) -> bytes:
    """Return what keeps a session alive where the server waits for reports: no loss stated, and a name."""
    report = struct.pack(">BBHIIIIIII", 0x81, 201, 7, own, sender, 0, 0, 0, 0, 0)
    name = b"overflight"
    item = bytes([1, len(name)]) + name
    item += bytes(4 - len(item) % 4)
    return report + struct.pack(">BBHI", 0x81, 202, 1 + len(item) // 4, own) + item


class Unwrapped:
    """A 32-bit counter without its wraps."""

    def __init__(self) -> None:
        self._last: int | None = None

    def of(self, value: int) -> int:
        """Return the value continued over the wrap that is nearest to the last one."""
        if self._last is None:
            self._last = value
        else:
            step = (value - self._last) & 0xFFFFFFFF
            self._last += step if step < 0x80000000 else step - 0x100000000
        return self._last
