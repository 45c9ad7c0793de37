"""RTP: order, loss and the sender's clock."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.sources.rtsp.rtp import ReorderBuffer, RtpPacket, SenderReport, Unwrapped, receiver_report


def datagram(sequence: int, payload: bytes = b"x", flags: int = 0x80, extra: bytes = b"") -> bytes:
    return struct.pack(">BBHII", flags, 0x60, sequence & 0xFFFF, 90_000, 7) + extra + payload


def packet(sequence: int, arrived_ns: int = 0) -> RtpPacket:
    found = RtpPacket.parse(datagram(sequence), arrived_ns)
    assert found is not None
    return found


@pytest.mark.parametrize(
    "raw",
    [
        datagram(5, b"payload"),
        datagram(5, b"payload", 0x82, bytes(8)),  # two contributing sources
        datagram(5, b"payload", 0x90, struct.pack(">HH", 1, 2) + bytes(8)),  # a header extension
        datagram(5, b"payload\0\0\3", 0xA0),  # padding
    ],
)
def test_every_part_of_the_header_is_passed_over(raw: bytes) -> None:
    """RFC 3550, section 5.1."""
    found = RtpPacket.parse(raw, 1)
    assert found is not None
    assert (found.sequence, found.payload) == (5, b"payload")


@given(st.binary(max_size=64))
def test_no_bytes_crash_the_readers(raw: bytes) -> None:
    """What is no packet is None."""
    RtpPacket.parse(raw, 0)
    SenderReport.parse(raw)


@given(st.permutations(range(12)), st.integers(0, 65535))
def test_any_order_comes_out_in_order(order: list[int], first: int) -> None:
    """Over the wrap of the counter too, and twice the same packet comes once."""
    buffer, seen = ReorderBuffer(), [first & 0xFFFF]
    assert [one.sequence for one in buffer.put(packet(first))] == seen
    for place in [*order, *order]:
        seen += [one.sequence for one in buffer.put(packet(first + 1 + place))]
    assert seen == [(first + place) & 0xFFFF for place in range(13)]
    assert buffer.lost == 0


def test_a_missing_packet_is_waited_for_and_then_lost() -> None:
    """After 60 ms the others follow, the first of them marked."""
    buffer = ReorderBuffer()
    list(buffer.put(packet(1)))
    assert not list(buffer.put(packet(3, arrived_ns=1)))
    out = list(buffer.put(packet(4, arrived_ns=70_000_000)))
    assert [(one.sequence, one.lost) for one in out] == [(3, True), (4, False)]
    assert buffer.lost == 1


def test_a_sender_that_starts_again_is_followed() -> None:
    """Its counter jumps far back."""
    buffer = ReorderBuffer()
    list(buffer.put(packet(40_000)))
    assert [one.sequence for one in buffer.put(packet(12_000))] == [12_000]


def test_a_sender_report_is_the_senders_clock() -> None:
    """NTP seconds and their fraction become nanoseconds since 1970."""
    raw = struct.pack(">BBHIIIIII", 0x80, 200, 6, 7, 2_208_988_800 + 10, 1 << 31, 90_000, 1, 1)
    assert SenderReport.parse(raw) == SenderReport(10_500_000_000, 90_000)
    assert SenderReport.parse(struct.pack(">BBHIIIIII", 0x80, 200, 6, 7, 0, 0, 0, 0, 0)) is None


def test_our_own_report_has_whole_words() -> None:
    """The length fields of both parts add up."""
    raw = receiver_report(1, 2)
    first = 4 * (1 + struct.unpack_from(">H", raw, 2)[0])
    assert first + 4 * (1 + struct.unpack_from(">H", raw, first + 2)[0]) == len(raw)


def test_a_counter_goes_on_over_its_wrap() -> None:
    """Forwards and backwards."""
    counter = Unwrapped()
    assert [counter.of(value) for value in (0xFFFFFF00, 0x100, 0xFFFFFFF0)] == [0xFFFFFF00, 0x100000100, 0xFFFFFFF0]
