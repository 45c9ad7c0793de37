"""CSV, GPX, GoPro and stills: real files, their traps, and bytes that are none of them.

Covers: runtime/pose/gpmf.py, runtime/pose/gpx.py, runtime/pose/mp4.py, runtime/pose/table.py.
"""

from __future__ import annotations

import csv
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.runtime.errors import SourceError
from overflight.runtime.geodesy import distance_m
from overflight.runtime.pose.fields import utc_ns
from overflight.runtime.pose.gpmf import read_gpmf
from overflight.runtime.pose.gpx import read_gpx
from overflight.runtime.pose.stills import read_still
from overflight.runtime.pose.table import read_csv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.pose.track import PoseTrack

GPX = """<?xml version="1.0"?>
<gpx xmlns="http://www.topografix.com/GPX/1/1" version="1.1" creator="x"><trk><trkseg>
<trkpt lat="-34.5" lon="-58.5"><ele>12.5</ele><time>2026-05-01T10:00:00Z</time></trkpt>
<trkpt lat="-34.6" lon="-58.5"><time>2026-05-01T10:00:01.500+00:00</time></trkpt>
<trkpt lat="-34.6" lon="-58.5"></trkpt>
<trkpt lat="x" lon="-58.5"><time>2026-05-01T10:00:02Z</time></trkpt>
</trkseg></trk></gpx>"""


@pytest.mark.data
def test_the_karma_s_metadata_equals_its_decoded_track(imagery: Path) -> None:
    """Every row of the decoded track is in the MP4's GPMF, to the last digit that the table writes."""
    track = read_gpmf(imagery / "uav_karma.mp4")
    with (imagery / "uav_karma.telemetry.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(track) == len(rows) == 47
    assert track.refused == ()
    for t_ns, row in zip(track.times_ns, rows, strict=True):
        pose = track.at(t_ns)
        assert pose is not None
        got = (
            pose.lat_deg,
            pose.lon_deg,
            pose.altitude_m,
            pose.height_m,
            pose.north_mps,
            pose.east_mps,
            pose.heading_deg,
        )
        expected = [float(row[name]) for name in ("lat", "lon", "alt", "rel_alt", "vx", "vy", "hdg")]
        assert got == pytest.approx(expected, abs=1e-9)
        since_first_s = float(row["t_ms"]) - float(rows[0]["t_ms"])  # the table's t_ms holds seconds since boot
        assert (t_ns - track.times_ns[0]) / 1e9 == pytest.approx(since_first_s, abs=1e-6)
    assert 0 <= track.times_ns[0] < 300e6
    assert track.times_ns[-1] < 12.08e9


@pytest.mark.data
def test_a_csv_track_counts_from_its_first_row(imagery: Path) -> None:
    """The decoded track reads as a recording's own clock, from 0."""
    track = read_csv(imagery / "uav_karma.telemetry.csv")
    assert track.clock == "media"
    assert track.times_ns[0] == 0
    pose = track.at(0)
    assert pose is not None
    assert (pose.lat_deg, pose.height_m, pose.heading_deg) == (33.1253688, 2.003, 331.56)


def test_a_csv_names_its_bad_rows(tmp_path: Path) -> None:
    """A row that cannot be used is named by line, the rest is used; a header without a time is refused."""
    path = tmp_path / "t.csv"
    path.write_text(
        "time,Lat,Lng,agl\n2026-05-01T10:00:00Z,-1,-2,30\n\n2026-05-01,x,2,3\n2026-05-01T10:00:01Z,nan,2,3\n,,,\nbad\n"
    )
    track = read_csv(path)
    assert [line.partition(", ")[2].partition(":")[0] for line in track.refused] == ["line 4", "line 5", "line 7"]
    pose = track.at(utc_ns("2026-05-01T10:00:00Z"))
    assert pose is not None
    assert (pose.lat_deg, pose.lon_deg, pose.height_m, pose.height_above) == (-1.0, -2.0, 30.0, "ground")
    path.write_text("lat,lon\n1,2\n")
    with pytest.raises(SourceError, match="line 1: columns lat, lon; expected"):
        read_csv(path)


def test_a_gpx_track_is_in_utc(tmp_path: Path) -> None:
    """Points south and west with fractions of seconds; two bad ones are named by line."""
    path = tmp_path / "t.gpx"
    path.write_text(GPX)
    track = read_gpx(path)
    pose = track.at(utc_ns("2026-05-01T10:00:00Z"))
    assert pose is not None
    assert (pose.lat_deg, pose.lon_deg, pose.altitude_m, pose.height_m) == (-34.5, -58.5, 12.5, None)
    assert [line.partition(", ")[2] for line in track.refused] == [
        "line 5: the track point has no time",
        "line 6: 'x' is not a number",
    ]


def test_a_gpx_with_entities_is_refused(tmp_path: Path) -> None:
    """A file that declares entities could grow without bound, so it is not read."""
    path = tmp_path / "bomb.gpx"
    path.write_text('<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><gpx>&c;</gpx>')
    with pytest.raises(SourceError, match="line 1: declares entities"):
        read_gpx(path)


@pytest.mark.data
def test_a_still_carries_its_pose(imagery: Path) -> None:
    """Exif and XMP of a DJI still: position west of Greenwich, height, gimbal straight down, lens of 20 mm."""
    path = imagery / "uav_brighton_beach" / "DJI_0018.JPG"
    still = read_still(path)
    pose, camera = still.pose, still.lens.camera((1600, 900))
    assert (pose.lat_deg, pose.lon_deg) == pytest.approx((46.84260708, -91.99455989))
    assert (pose.height_m, pose.altitude_m, pose.utc_ns) == (39.8, 198.31, 0)
    assert pose.gimbal is not None
    assert (pose.gimbal.yaw_deg, pose.gimbal.pitch_deg) == (45.0, -89.9)
    assert camera is not None
    assert camera.hfov_deg == pytest.approx(81.74, abs=0.01)


@pytest.mark.data
def test_exif_agrees_with_an_imaging_library(imagery: Path) -> None:
    """Every still's GPS equals what Pillow reads."""
    from PIL import Image

    for path in sorted((imagery / "uav_brighton_beach").glob("*.JPG")):
        with Image.open(path) as image:
            gps = image.getexif().get_ifd(0x8825)
        lat, lon = (sum(float(part) / 60**i for i, part in enumerate(gps[tag])) for tag in (2, 4))
        pose = read_still(path).pose
        assert distance_m((lat, -lon), (pose.lat_deg, pose.lon_deg)) < 1e-3


def klv(key: bytes, kind: bytes, size: int, data: bytes) -> bytes:
    return struct.pack(">4scBH", key, kind, size, len(data) // size if size else 0) + data + b"\0" * (-len(data) % 4)


def nest(key: bytes, inner: bytes) -> bytes:
    return klv(key, b"\0", 1, inner)


def box(key: bytes, inner: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(inner), key) + inner


def mp4(payload: bytes) -> bytes:
    """The smallest MP4 with one GPMF sample of one second."""
    stbl = (
        box(b"stsd", struct.pack(">IIII", 0, 1, 16, 0)[:12] + b"gpmd" + b"\0" * 8)
        + box(b"stts", struct.pack(">IIII", 0, 1, 1, 1000))
        + box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
        + box(b"stsz", struct.pack(">IIII", 0, 0, 1, len(payload)))
        + box(b"stco", struct.pack(">III", 0, 1, 8))
    )
    mdhd = box(b"mdhd", struct.pack(">IIIIII", 0, 0, 0, 1000, 1000, 0))
    moov = box(b"moov", box(b"trak", box(b"mdia", mdhd + box(b"minf", box(b"stbl", stbl)))))
    return box(b"mdat", payload) + moov


def hero(rows: list[tuple[int, ...]], fix: int = 3) -> bytes:
    scale = klv(b"SCAL", b"l", 4, struct.pack(">5i", 10_000_000, 10_000_000, 1000, 1000, 100))
    fixes = klv(b"GPSF", b"L", 4, struct.pack(">I", fix))
    data = klv(b"GPS5", b"l", 20, b"".join(struct.pack(">5i", *row) for row in rows))
    return nest(b"DEVC", nest(b"STRM", fixes + scale + data))


def test_a_hero_s_fixes_are_spread_over_their_payload(tmp_path: Path) -> None:
    """GPS5 gives latitude, longitude, altitude at even times; without a fix nothing is believed."""
    path = tmp_path / "h.mp4"
    path.write_bytes(mp4(hero([(-331253688, -1173310668, 15711, 0, 0), (-331253700, -1173310668, 15711, 0, 0)])))
    track = read_gpmf(path)
    assert track.times_ns == (0, 500_000_000)
    pose = track.at(0)
    assert pose is not None
    assert (pose.lat_deg, pose.lon_deg, pose.altitude_m) == pytest.approx((-33.1253688, -117.3310668, 15.711))
    path.write_bytes(mp4(hero([(-331253688, -1173310668, 15711, 0, 0)], fix=0)))
    with pytest.raises(SourceError, match=r"h\.mp4: no position in its GoPro metadata"):
        read_gpmf(path)


def survives(read: Callable[[Path], PoseTrack], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        assert len(read(path)) > 0
    except SourceError as error:
        assert path.name in str(error)


@given(st.one_of(st.binary(max_size=200), st.text("time,lato.n_ms0123456789-:TZ\n\"'", max_size=200).map(
    lambda body: ("t_ms,lat,lon,rel_alt\n" + body).encode())))  # fmt: skip
def test_no_table_crashes_the_parser(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes give a track or a SourceError that names the file."""
    survives(read_csv, tmp_path_factory.getbasetemp() / "fuzz.csv", content)


@given(st.data())
def test_no_gpx_crashes_the_parser(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A GPX file damaged anywhere gives a track or a SourceError that names the file."""
    content = bytearray(GPX.encode())
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = byte
    survives(read_gpx, tmp_path_factory.getbasetemp() / "fuzz.gpx", bytes(content))


@given(st.data())
def test_no_mp4_crashes_the_parser(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """An MP4 damaged or cut off anywhere gives a track or a SourceError that names the file."""
    content = bytearray(mp4(hero([(1, 2, 3, 4, 5)] * 3)))
    for place, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)
    ):
        content[place] = byte
    survives(
        read_gpmf,
        tmp_path_factory.getbasetemp() / "fuzz.mp4",
        bytes(content[: data.draw(st.integers(0, len(content)))]),
    )


@pytest.mark.data
@settings(max_examples=200)
@given(data=st.data())
def test_no_still_crashes_the_parser(
    imagery: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A JPEG header damaged or cut off anywhere gives a pose or a SourceError that names the file."""
    content = bytearray((imagery / "uav_brighton_beach" / "DJI_0018.JPG").read_bytes()[:6000])
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 5999), st.integers(0, 255)), max_size=20)):
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "fuzz.jpg"
    path.write_bytes(content[: data.draw(st.integers(0, 6000))])
    try:
        assert abs(read_still(path).pose.lat_deg) <= 90
    except SourceError as error:
        assert "fuzz.jpg" in str(error)


def test_a_hero_s_dilution_widens_the_radius(tmp_path: Path) -> None:
    """GPSP is a hundred times the dilution of precision: at 8 the radius is four times that under open sky."""
    path = tmp_path / "h.mp4"
    stream = hero([(-331253688, -1173310668, 15711, 0, 0)])
    worse = klv(b"GPSP", b"S", 2, struct.pack(">H", 800))
    inner = stream[8:][8:]  # what the device and the stream hold
    for extra, radius_m in ((b"", 5.0), (worse, 20.0)):
        path.write_bytes(mp4(nest(b"DEVC", nest(b"STRM", extra + inner))))
        pose = read_gpmf(path).at(0)
        assert pose is not None
        assert pose.h_acc_m == radius_m
