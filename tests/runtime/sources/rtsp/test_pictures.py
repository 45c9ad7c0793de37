"""Pictures out of packets: whole, or known to be damaged."""

from __future__ import annotations

import struct

import pytest

from overflight.runtime.sources.rtsp.pictures import MOST_PICTURE_BYTES, Assembler, Codec, CodedPicture
from overflight.runtime.sources.rtsp.rtp import RtpPacket

START = b"\0\0\0\1"


def feed(codec: Codec, *packets: tuple[bytes, int, bool, bool]) -> list[CodedPicture]:
    """Feed packets of (payload, timestamp, marker, lost)."""
    assembler = Assembler(codec)
    return [
        picture
        for sequence, (payload, timestamp, marker, lost) in enumerate(packets)
        for picture in assembler.put(RtpPacket(sequence, timestamp, marker, payload, sequence, lost))
    ]


def test_a_picture_is_complete_with_its_marker() -> None:
    """Not one packet later: parameter sets in one packet, then an IDR slice in three fragments."""
    sets = b"\x18" + struct.pack(">H", 3) + b"\x67ab" + struct.pack(">H", 3) + b"\x68cd"
    fragments = [b"\x7c\x85" + b"one", b"\x7c\x05" + b"two", b"\x7c\x45" + b"three"]
    (picture,) = feed(
        "h264",
        (sets, 9, False, False),
        (fragments[0], 9, False, False),
        (fragments[1], 9, False, False),
        (fragments[2], 9, True, False),
    )
    assert picture.data == START + b"\x67ab" + START + b"\x68cd" + START + b"\x65onetwothree"
    assert (picture.key, picture.damaged, picture.gap, picture.arrived_ns) == (True, False, False, 0)


def test_hevc_fragments_and_aggregates() -> None:
    """The two bytes of a unit's header are made again."""
    sets = b"\x60\x01" + struct.pack(">H", 4) + b"\x40\x01ab"
    (picture,) = feed(
        "hevc",
        (sets, 9, False, False),
        (b"\x62\x01\x93" + b"one", 9, False, False),
        (b"\x62\x01\x53" + b"two", 9, True, False),
    )
    assert picture.data == START + b"\x40\x01ab" + START + b"\x26\x01onetwo"
    assert picture.key


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_lost_fragment_damages_its_picture(missing: int) -> None:
    """The first, a middle or the last one."""
    parts = [(b"\x7c\x85a", False), (b"\x7c\x05b", False), (b"\x7c\x45c", True)]
    after = (b"\x41next", 18, True, missing == 2)
    kept = [
        (payload, 9, marker, place == missing + 1) for place, (payload, marker) in enumerate(parts) if place != missing
    ]
    pictures = feed("h264", *kept, after)
    assert any(picture.damaged or picture.gap for picture in pictures)
    assert not pictures[-1].key


def test_a_picture_lost_whole_leaves_a_gap() -> None:
    """What follows is built on it."""
    pictures = feed("h264", (b"\x65a", 0, True, False), (b"\x41b", 18, True, True))
    assert [picture.gap for picture in pictures] == [False, True]


def test_a_sender_without_markers_is_read_one_picture_late() -> None:
    """Its pictures are whole all the same."""
    pictures = feed("h264", (b"\x65a", 0, False, False), (b"\x41b", 9, False, False), (b"\x41c", 18, False, False))
    assert [picture.damaged for picture in pictures] == [False, False]


@pytest.mark.parametrize(
    ("message", "count"), [(b"\x06\x06\x01\xc4\x80", 0), (b"\x06\x06\x01\x12\x80", 8), (b"\x06\x05\x01\x00\x80", None)]
)
def test_a_gradual_refresh_says_when_it_is_complete(message: bytes, count: int | None) -> None:
    """A recovery point message carries the number of pictures; other messages do not count."""
    (picture,) = feed("h264", (message, 0, False, False), (b"\x41b", 0, True, False))
    assert picture.recovery == count
    assert not picture.key


@pytest.mark.parametrize(
    ("first", "payload"),
    [(b"\x41", b"\x41" + bytes(1399)), (b"\x7c\x81x", b"\x7c\x01" + bytes(1398))],
    ids=["slices", "fragments"],
)
def test_a_clock_that_stands_still_fills_no_memory(first: bytes, payload: bytes) -> None:
    """Neither a marker nor another time: bluenviron/mediamtx#3677 is a sender with one RTP time for all packets."""
    assembler, kept = Assembler("h264"), 0
    for sequence in range(20_000):
        packet = RtpPacket(sequence, 0, False, payload if sequence else first, sequence)
        assert not list(assembler.put(packet))
        unit = assembler._unit
        assert unit is not None
        kept = max(kept, sum(map(len, unit.nals)) + sum(map(len, assembler._fragments or ())))
    assert kept <= MOST_PICTURE_BYTES
    after = [RtpPacket(20_000, 9, False, b"\x65a", 0), RtpPacket(20_001, 9, True, b"\x65b", 0)]
    (picture,) = [one for packet in after for one in assembler.put(packet)]
    assert picture.data == START + b"\x65a" + START + b"\x65b"
    assert picture.gap


def test_an_aggregate_that_states_more_than_it_has_is_damaged() -> None:
    """What it has is no whole unit (bluenviron/mediamtx#3754 was such a slice out of range)."""
    whole = struct.pack(">H", 3) + b"\x67ab"
    for cut in (struct.pack(">H", 9) + b"\x65ab", struct.pack(">H", 0xFFFF) + b"\x65", b"\xff\xff"):
        pictures = feed("h264", (b"\x18" + whole + cut, 9, False, False), (b"\x65x", 9, True, False))
        assert [picture.data for picture in pictures] == [START + b"\x67ab" + START + b"\x65x"]
        assert pictures[0].damaged == (len(cut) > 2)
