"""PX4 logs, written here by the format's own description: places, heights, attitudes, time; damage is named."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from overflight.runtime.errors import SourceError
from overflight.runtime.pose.source import read_track

pytest.importorskip("pyulog")
BOOT_UTC_US = 1_714_557_600_000_000  # 2024-05-01T10:00:00Z
GLOBAL = "uint64_t timestamp;double lat;double lon;float alt;float eph;"
ATTITUDE = "uint64_t timestamp;float[4] q;"
OLD_GPS = "uint64_t timestamp;uint64_t time_utc_usec;int32_t lat;int32_t lon;int32_t alt;float eph;float vel_n_m_s;float vel_e_m_s;uint8_t fix_type;"  # fmt: skip  # noqa: E501
NEW_GPS = "uint64_t timestamp;uint64_t time_utc_usec;double latitude_deg;double longitude_deg;double altitude_msl_m;uint8_t fix_type;"  # fmt: skip  # noqa: E501
HOME = "uint64_t timestamp;float alt;"
LOCAL = "uint64_t timestamp;float dist_bottom;bool dist_bottom_valid;"
CODES = {"uint64_t": "Q", "double": "d", "float": "f", "int32_t": "i", "uint8_t": "B", "bool": "?", "float[4]": "4f"}


def message(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<HB", len(content), kind[0]) + content


def ulog(topics: dict[str, tuple[str, list[tuple[float, ...]]]]) -> bytes:
    """Write a log (docs.px4.io, ULog file format): header, formats, subscriptions, data."""
    raw = b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 0) + message(b"B", bytes(40))
    for name, (fields, _) in topics.items():
        raw += message(b"F", f"{name}:{fields}".encode())
    for number, name in enumerate(topics):
        raw += message(b"A", struct.pack("<BH", 0, number) + name.encode())
    for number, (fields, rows) in enumerate(topics.values()):
        codes = "<" + "".join(CODES[field.split()[0]] for field in fields.split(";")[:-1])
        for row in rows:
            raw += message(b"D", struct.pack("<H", number) + struct.pack(codes, *row))
    return raw


def fixes(count: int = 20, fix: int = 3) -> list[tuple[float, ...]]:
    """Fixes of an older PX4: five a second, each 120 ms late but for some; 0.0001 degrees north a second."""
    return [
        (k * 200_000 + (0 if k % 4 == 0 else 120_000), BOOT_UTC_US + k * 200_000, 460_000_000 + 200 * k, 70_000_000,
         450_000, 1.5, 2.2, 0.0, fix)
        for k in range(count)
    ]  # fmt: skip


def written(tmp_path: Path, topics: dict[str, tuple[str, list[tuple[float, ...]]]]) -> Path:
    path = tmp_path / "flight.ulg"
    path.write_bytes(ulog(topics))
    return path


def test_the_filters_estimate_is_joined_to_utc(tmp_path: Path) -> None:
    """Between two estimates it is interpolated; heights count from home, or from the ground where that is measured."""
    half = math.sqrt(0.5)
    path = written(
        tmp_path,
        {
            "vehicle_global_position": (GLOBAL, [(k * 100_000, 46.0 + 1e-5 * k, 7.0, 450.0, 0.8) for k in range(40)]),
            "vehicle_attitude": (ATTITUDE, [(k * 4_000, half, 0.0, 0.0, half) for k in range(1000)]),
            "vehicle_gps_position": (OLD_GPS, fixes()),
            "home_position": (HOME, [(0, 400.0)]),
            "vehicle_local_position": (LOCAL, [(2_000_000, 47.5, True), (2_500_000, 3.0, False)]),
        },
    )
    track = read_track(path)
    pose = track.at((BOOT_UTC_US + 1_050_000) * 1000)
    assert pose is not None
    assert pose.lat_deg == pytest.approx(46.000105, abs=1e-7)
    assert (pose.height_m, pose.height_above, pose.altitude_m) == (50.0, "takeoff", 450.0)
    assert pose.vehicle is not None
    assert pose.vehicle.yaw_deg == pytest.approx(90.0)
    above = track.at((BOOT_UTC_US + 2_100_000) * 1000)
    assert above is not None
    assert (above.height_m, above.height_above) == (47.5, "ground")
    later = track.at((BOOT_UTC_US + 3_000_000) * 1000)
    assert later is not None
    assert later.height_above == "takeoff"
    assert not track.refused


@pytest.mark.parametrize("new", [False, True])
def test_a_receivers_fixes_do_where_no_estimate_is_logged(tmp_path: Path, new: bool) -> None:
    """As integers, or as degrees and metres since PX4 1.14; a row without a fix is no place."""
    rows = fixes()
    if new:
        rows = [(row[0], row[1], row[2] / 1e7, row[3] / 1e7, row[4] / 1e3, row[8]) for row in rows]
    bad = (*rows[3][:-1], 0)
    topics = {"sensor_gps": (NEW_GPS if new else OLD_GPS, [*rows[:3], bad, *rows[4:]])}
    track = read_track(written(tmp_path, topics))
    assert len(track) == 19
    first = track.first
    assert first is not None
    assert (first.lat_deg, first.lon_deg, first.altitude_m) == pytest.approx((46.0, 7.0, 450.0))
    assert first.utc_ns == pytest.approx(BOOT_UTC_US * 1000, abs=1e6)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    """No time, no place, no log, a cut-off one."""
    untimed = [(row[0], 0, *row[2:]) for row in fixes()]
    with pytest.raises(SourceError, match="no GPS time"):
        read_track(written(tmp_path, {"vehicle_gps_position": (OLD_GPS, untimed)}))
    with pytest.raises(SourceError, match="no position"):
        read_track(written(tmp_path, {"vehicle_gps_position": (OLD_GPS, fixes(fix=0))}))
    path = written(tmp_path, {"vehicle_gps_position": (OLD_GPS, fixes())})
    whole = path.read_bytes()
    path.write_bytes(b"not a log")
    with pytest.raises(SourceError, match="not a PX4 log"):
        read_track(path)
    for length in range(8, 160, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            read_track(path)
    path.write_bytes(whole[:-30])
    assert len(read_track(path)) >= 18
    path.write_bytes(whole[:600] + b"\xff" * 150 + whole[750:])
    try:
        assert read_track(path).refused
    except SourceError as error:
        assert "\n" not in str(error)
