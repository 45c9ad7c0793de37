"""DJI subtitles: every dialect, every trap, and files that are broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import SourceError
from overflight.runtime.pose.srt import read_srt

if TYPE_CHECKING:
    from pathlib import Path

# What each log must give: usable subtitles, then latitude, longitude and height above take-off of the first.
LOGS = {
    "MAVIC3.srt": (12318, 3.41531, -3.3744, -2.4),
    "air2s.srt": (17, 41.424724, 2.234156, None),
    "broken_incomplete.SRT": (19, -34.7383, -58.4563, 20.1),
    "broken_incomplete2.SRT": (4, -34.86995, -57.823395, None),
    "m2zoom.SRT": (7113, 31.452012, 74.398751, None),
    "matrice_300.srt": (381, 36.6146, -6.112, 0.3),
    "mavic_2_style.SRT": (468, -20.2533, 149.0251, None),
    "mavic_2pro_new.SRT": (8952, -35.080155, -60.286702, None),
    "mavic_air2.srt": (25, 41.420684, 2.162162, None),
    "mavic_mini.SRT": (117, 48.0771, -121.7458, 200.7),
    "mavic_pro.SRT": (468, -20.2533, 149.0251, 1.9),
    "mavic_pro_buggy.SRT": (530, 42.4668, -1.2218, 0.0),
    "mix_p4rtk_mavic2pro.srt": (12, -34.6502, -59.409424, 17.39),
    "old_format.SRT": (468, -20.2533, 149.0251, 1.9),
    "p4_rtk.SRT": (55, -34.237922, -58.851745, 85.8),
    "p4p_sample.SRT": (5, 47.4692, 8.209, 45.6),
}
REFUSED = {
    "broken_empty.SRT": "broken_empty.SRT, line 1: no subtitle",
    "broken_empty2.SRT": "broken_empty2.SRT, line 1: no time",
    "mavic_air.SRT": "mavic_air.SRT, line 1: no position.*nor in 1 more",
}


@pytest.mark.data
def test_no_log_is_forgotten(imagery: Path) -> None:
    """Every log of the collection is either expected to parse or expected to be refused."""
    assert {path.name for path in (imagery / "dji_srt").iterdir()} == LOGS.keys() | REFUSED.keys()


@pytest.mark.data
@pytest.mark.parametrize("name", LOGS)
def test_a_log_parses(imagery: Path, name: str) -> None:
    """Each dialect gives its subtitles, on the right side of the equator and of Greenwich."""
    track = read_srt(imagery / "dji_srt" / name)
    first = track.at(track.times_ns[0])
    assert first is not None
    assert (len(track), first.lat_deg, first.lon_deg, first.height_m) == LOGS[name]


@pytest.mark.data
@pytest.mark.parametrize("name", REFUSED)
def test_a_log_without_positions_is_refused(imagery: Path, name: str) -> None:
    """A log with nothing usable is refused by name and line."""
    with pytest.raises(SourceError, match=REFUSED[name]):
        read_srt(imagery / "dji_srt" / name)


@pytest.mark.data
def test_cut_off_subtitles_are_named(imagery: Path) -> None:
    """What a truncated log loses is named by line, the rest is used."""
    refused = read_srt(imagery / "dji_srt" / "broken_incomplete2.SRT").refused
    assert [line.partition(", ")[2] for line in refused] == [
        f"line {n}: no position, or one cut short, in this subtitle" for n in (13, 31)
    ]
    assert len(read_srt(imagery / "dji_srt" / "mavic_pro_buggy.SRT").refused) == 16


def one(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "a.srt"
    path.write_text(f"1\n00:00:01,500 --> 00:00:02,000\n{line}\n")
    return path


@pytest.mark.parametrize(
    ("line", "lat", "lon"),
    [
        ("GPS(149.0251,-20.2533,16) BAROMETER:1.9", -20.2533, 149.0251),
        ("GPS(39.9042,116.4074,16) BAROMETER:1.9", 39.9042, 116.4074),
        ("GPS(-6.1120,36.6146,12) BAROMETER:1.9", 36.6146, -6.112),
        ("GPS(36.6146,-6.1120,0.0M) BAROMETER:0.3M", 36.6146, -6.112),
        ("F/2.8, SS 30, ISO 260, EV -1.7, GPS (-82.6669, 27.7716, 10), D 1m, H 2.00m", 27.7716, -82.6669),
        ("[latitude : -34.87] [longtitude : -57.82] [altitude: 74.7]", -34.87, -57.82),
        ("[latitude: -34.87] [longitude: -57.82] [rel_alt: 1.5 abs_alt: 2.5]", -34.87, -57.82),
    ],
)
def test_longitude_first_is_decided_by_dialect(tmp_path: Path, line: str, lat: float, lon: float) -> None:
    """South and west keep their sign, and each dialect its order, unless the numbers prove the other."""
    pose = read_srt(one(tmp_path, line)).at(1_500_000_000)
    assert pose is not None
    assert (pose.lat_deg, pose.lon_deg) == (lat, lon)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[latitude: 0.0] [longitude: 0.0]", "no fix"),
        ("[latitude: 95.0] [longitude: 10.0]", "not on the earth"),
        ("GPS(N/A,N/A,3) BAROMETER:0.0", "no position"),
        ("[latitude: 12.3", "cut short"),
    ],
)
def test_a_useless_position_is_refused(tmp_path: Path, line: str, why: str) -> None:
    """No fix, off the earth, absent or cut short: each says so with its line."""
    with pytest.raises(SourceError, match=f"line 1: .*{why}"):
        read_srt(one(tmp_path, line))


def test_angles_of_the_p4_rtk(tmp_path: Path) -> None:
    """F.PRY and G.PRY are pitch, roll, yaw; four decimals widen the error radius to 5.6 m."""
    line = "F/5.6, GPS (8.2090, 47.4692, 18), H 45.60m, F.PRY (-8.9°, 2.9°, -75.0°), G.PRY (-27.3°, 0.0°, -76.0°)"
    pose = read_srt(one(tmp_path, line)).at(1_500_000_000)
    assert pose is not None
    assert pose.gimbal is not None
    assert pose.vehicle is not None
    assert (pose.gimbal.pitch_deg, pose.gimbal.yaw_deg) == pytest.approx((-27.3, 284.0))
    assert (pose.vehicle.pitch_deg, pose.vehicle.roll_deg) == pytest.approx((-8.9, 2.9))
    assert pose.h_acc_m == pytest.approx(5.566)


PIECES = [
    *("1\n", "\n", "00:00:00,000 --> 00:00:01,000\n", "GPS(1.0,2.0,3)", "GPS(", "[latitude : ", "-91]"),
    *(
        "[longtitude : 3]",
        "[latitude: 1] [longitude: 2]",
        "9" * 400,
        "[rel_alt: 1 abs_alt: 2]",
        "BAROMETER:" + "9" * 330,
    ),
    *("2017.13.45 99:99:99", "2017.8.5 14:11:51", "F.PRY (1°, 2°, 3°)", "\ufeff", "\x00"),
]


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join).map(str.encode), st.binary(max_size=300)))
def test_no_file_crashes_the_parser(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes give a track or a SourceError that names the file and a line."""
    path = tmp_path_factory.getbasetemp() / "fuzz.srt"
    path.write_bytes(content)
    try:
        assert len(read_srt(path)) > 0
    except SourceError as error:
        assert "fuzz.srt, line " in str(error)


@pytest.mark.parametrize(
    ("text", "zoom"),
    [("[dzoom_ratio: 20000, delta:0]", 2.0), ("[dzoom_ratio: 1.50]", 1.5), ("[dzoom: 4.0]", 4.0), ("[iso: 100]", 1.0)],
)
def test_digital_zoom_is_taken_from_the_subtitle(tmp_path: Path, text: str, zoom: float) -> None:
    """Ten thousand times the factor in older firmware, the factor in newer."""
    path = tmp_path / "a.srt"
    path.write_text(
        f"1\n00:00:00,000 --> 00:00:00,033\n{text} [latitude: 46.0] [longitude: 7.0] [rel_alt: 80 abs_alt: 1]\n"
    )
    pose = read_srt(path).at(0)
    assert pose is not None
    assert pose.zoom == zoom


def test_a_gimbal_of_exact_zeros_is_unknown(tmp_path: Path) -> None:
    """Firmware that does not know its gimbal writes zeros; one that differs from 0 is believed."""
    path = tmp_path / "a.srt"
    line = (
        "1\n00:00:00,000 --> 00:00:00,033\n[latitude: 46.0] [longitude: 7.0] [gb_yaw: 0.0 gb_pitch: {} gb_roll: 0.0]\n"
    )
    for pitch, known in (("0.0", False), ("-90.0", True)):
        path.write_text(line.format(pitch))
        pose = read_srt(path).at(0)
        assert pose is not None
        assert (pose.gimbal is not None) == known
