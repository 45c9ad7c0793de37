"""MISB ST 0601: the standard's own examples, a transport stream that PyAV wrote, and bytes that are neither."""

from __future__ import annotations

import runpy
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import SourceError
from overflight.runtime.frame import Frame
from overflight.runtime.geodesy import distance_m
from overflight.runtime.pose.geotag import Geotagger, Location
from overflight.runtime.pose.klv import LiveMetadata, decode_local_set, read_klv
from overflight.runtime.sources.network import LiveVideo

MAKE = runpy.run_path(str(Path(__file__).parents[2] / "corpus" / "telemetry" / "make.py"))
START_US = 1_714_557_600_000_000


def scaled(value: float, low: float, high: float, size: int, *, signed: bool = False) -> str:
    whole = round(
        value / high * (2 ** (8 * size - 1) - 1) if signed else (value - low) / (high - low) * (256**size - 1)
    )
    return int(whole).to_bytes(size, "big", signed=signed).hex()


def looking_down(i: int) -> bytes:
    """Return a set of an aircraft that flies north at 100 m above the ground and looks straight down."""
    values = {
        2: (START_US + i * 40_000).to_bytes(8, "big").hex(),
        5: scaled(0, 0, 360, 2), 6: scaled(0, -20, 20, 2, signed=True), 7: scaled(0, -50, 50, 2, signed=True),
        13: scaled(46 + i * 1e-6, -90, 90, 4, signed=True), 14: scaled(7, -180, 180, 4, signed=True),
        15: scaled(500, -900, 19000, 2), 16: scaled(40, 0, 180, 2), 17: scaled(30, 0, 180, 2), 18: scaled(0, 0, 360, 4),
        19: scaled(-90, -180, 180, 4, signed=True), 20: scaled(0, 0, 360, 4), 21: "", 25: scaled(400, -900, 19000, 2),
    }  # fmt: skip
    made: bytes = MAKE["local_set"](values, 2)
    return made


def transport_stream(path: Path, *, metadata: bool = True) -> None:
    """Write two seconds of video at 25 frames a second, with a metadata set every fifth frame."""
    av: Any = pytest.importorskip("av")
    with av.open(str(path), "w", format="mpegts") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        data = container.add_data_stream("klv") if metadata else None
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8))
            frame.pts = i
            container.mux(video.encode(frame))
            if data is not None and i % 5 == 0:
                packet = av.Packet(looking_down(i))
                packet.stream, packet.time_base, packet.pts, packet.dts = data, Fraction(1, 90_000), i * 3600, i * 3600
                container.mux(packet)
        container.mux(video.encode())


def test_a_transport_stream_places_its_own_frames(tmp_path: Path) -> None:
    """Pose, camera and ground of a frame by its time in the video, with nothing but the file."""
    path = tmp_path / "flight.ts"
    transport_stream(path)
    where = Geotagger.open(str(path))
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, 0, media_ns=1_000_000_000)
    pose, place = where.locate(frame)
    assert pose is not None
    assert place is not None
    assert pose.height_m == pytest.approx(100, abs=0.4)
    assert pose.height_above == "ground"
    assert pose.utc_ns == START_US * 1000 + 1_000_000_000
    assert distance_m((pose.lat_deg, pose.lon_deg), (46 + 25e-6, 7)) < 0.1
    assert distance_m((place.lat_deg, place.lon_deg), (46 + 25e-6, 7)) < 0.5
    width_m = distance_m(place.footprint[0][::-1], place.footprint[1][::-1])
    assert width_m == pytest.approx(2 * 100 * np.tan(np.radians(20)), rel=0.01)


def test_a_video_without_metadata_is_refused(tmp_path: Path) -> None:
    """In one line that says what was expected."""
    path = tmp_path / "plain.ts"
    transport_stream(path, metadata=False)
    with pytest.raises(SourceError, match=r"plain\.ts: no ST 0601 metadata track; expected"):
        read_klv(path)
    path.write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"plain\.ts: "):
        read_klv(path)


def test_the_standard_s_examples() -> None:
    """Every value of the standard's examples, to its stated resolution."""
    decoded = decode_local_set(MAKE["local_set"]({}))
    assert decoded is not None
    expected = {
        "yaw": 159.974365, "pitch": -0.431532, "roll": 3.405866, "lat": 60.176823, "lon": 128.426759,
        "altitude": 14190.7195, "hfov": 144.571298, "vfov": 152.643626, "azimuth": 160.719211,
        "elevation": -168.792325, "turn": 176.866427, "ground": 3216.0372,
    }  # fmt: skip
    assert decoded.values == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}


@given(st.data())
def test_no_stream_crashes_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Sets damaged or cut off anywhere give a track or a SourceError that names the file."""
    content = bytearray(looking_down(0) + looking_down(1))
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "fuzz.klv"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert len(read_klv(path)) > 0
    except SourceError as error:
        assert "fuzz.klv" in str(error)


def test_a_set_cut_between_two_packets_is_joined(tmp_path: Path) -> None:
    """A multiplexer may end a packet inside a set; the next one begins with the rest."""
    av: Any = pytest.importorskip("av")
    path = tmp_path / "cut.ts"
    with av.open(str(path), "w", format="mpegts") as container:
        video = container.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        data = container.add_data_stream("klv")
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8))
            frame.pts = i
            container.mux(video.encode(frame))
            if i % 5 == 0:
                whole = looking_down(i)
                for piece, late in ((whole[:60], 0), (whole[60:], 1)):
                    packet = av.Packet(piece)
                    packet.stream, packet.time_base = data, Fraction(1, 90_000)
                    packet.pts = packet.dts = i * 3600 + late
                    container.mux(packet)
        container.mux(video.encode())
    track = read_klv(path)
    assert len(track) == 5
    assert track.refused == ()


def test_a_live_stream_places_its_own_pictures(tmp_path: Path) -> None:
    """Each with what was said last, at most five pictures ago; a camera that looks down from 100 m sees 73 m across."""
    transport_stream(tmp_path / "live.ts")
    tagger, source = Geotagger.open("stream"), LiveVideo(str(tmp_path / "live.ts"), "live")
    seen: list[tuple[Frame, Location]] = []
    with pytest.raises(SourceError, match="the sender ended the stream"):
        for frame in source.frames():
            seen.append((frame, tagger.locate(frame)))  # noqa: PERF401 - what came before the end counts
    assert len(seen) == 50
    for frame, where in seen[2:]:
        pose, place = where.pose, where.place
        assert pose is not None
        assert place is not None
        assert place.footprint
        behind_m = distance_m((46 + frame.number * 1e-6, 7.0), (pose.lat_deg, pose.lon_deg))
        assert behind_m < 0.6
        assert pose.utc_ns == pytest.approx(START_US * 1000 + frame.number * 40_000_000, abs=1e6)
        left, right = ((lat, lon) for lon, lat in place.footprint[:2])
        assert distance_m(left, right) == pytest.approx(73, abs=1)
    assert tagger.refused == ()


def test_a_stream_without_metadata_is_named(tmp_path: Path) -> None:
    """After five seconds; and a sender that starts again is followed."""
    transport_stream(tmp_path / "live.ts", metadata=False)
    tagger, frame = Geotagger.open("stream"), Frame(np.zeros((4, 4, 3), np.uint8), 0, 1)
    assert tagger.locate(frame) == (None, None)
    assert not tagger.refused
    tagger.locate(Frame(frame.pixels, 1, 6_000_000_000))
    assert "no position in the stream for 5 s" in " ".join(tagger.refused)
    metadata = LiveMetadata()
    for stamp_s, turn in [(90_000.0, 10), (0.0, 20), (0.2, 25)]:
        metadata.put(int(stamp_s * 1e9), looking_down(turn))
    pose, _ = metadata.at(200_000_000)
    assert pose is not None
    assert pose.lat_deg == pytest.approx(46 + 25e-6, abs=1e-7)
