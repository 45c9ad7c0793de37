"""Geotagger: from a frame to its pose and place, and a survey flight whose footprints are known from its pictures."""

from __future__ import annotations

import contextlib
import math
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.geodesy import distance_m
from overflight.runtime.pose.autopilot import Address
from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.geotag import Geotagger

if TYPE_CHECKING:
    from overflight.runtime.pose.footprint import Place

CORPUS = Path(__file__).parents[2] / "corpus" / "telemetry"
PIXELS = np.zeros((9, 16, 3), np.uint8)
TRACK = "time,lat,lon,rel_alt,gimbal_yaw,gimbal_pitch\n2026-05-01T10:00:00Z,47.0,8.0,100,0,-90\n" + (
    "2026-05-01T10:00:02Z,47.0002,8.0,100,0,-90\n"
)
T0 = 1_777_629_600_000_000_000


def frame(*, utc_ns: int | None = None, media_ns: int | None = None, name: str | None = None) -> Frame:
    return Frame(PIXELS, 0, 0, utc_ns, media_ns=media_ns, name=name)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(TRACK)
    return path


def test_a_live_frame_meets_a_utc_track(csv: Path) -> None:
    """The wall clock of the frame picks the pose; the camera makes it a place."""
    where = Geotagger.open(str(csv), "hfov=71.6")
    pose, place = where.locate(frame(utc_ns=T0 + 1_000_000_000))
    assert pose is not None
    assert place is not None
    assert pose.lat_deg == pytest.approx(47.0001)
    assert place.gsd_m == pytest.approx(144.24 / 16, rel=1e-3)
    where.close()


def test_a_recording_meets_a_utc_track_where_it_began(csv: Path) -> None:
    """start= places the recording's first frame; shift_s= corrects a camera's latency."""
    where = Geotagger.open(f"{csv}?start=2026-05-01T10:00:00Z&shift_s=-0.5")
    pose, place = where.locate(frame(media_ns=1_500_000_000))
    assert pose is not None
    assert pose.lat_deg == pytest.approx(47.0001)
    assert place is None


def test_a_frame_without_a_time_has_no_pose_and_says_why(tmp_path: Path) -> None:
    """A subtitle track and a live camera share no clock: no pose, and one line of reason."""
    path = tmp_path / "t.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\n[latitude: 1.5] [longitude: 2.5]\n")
    where = Geotagger.open(str(path))
    assert where.locate(frame(utc_ns=T0)) == (None, None)
    assert where.locate(frame(utc_ns=T0)) == (None, None)
    assert where.refused == ("the telemetry runs on the media clock, which these frames do not tell",)


def test_a_tile_has_a_place_of_its_own(csv: Path) -> None:
    """The left half of a picture that looks north lies west."""
    where = Geotagger.open(str(csv), "hfov=71.6")
    _, left = where.locate(frame(utc_ns=T0), (0.0, 0.0, 0.5, 1.0))
    assert left is not None
    assert left.lon_deg < 8.0


def test_wrong_requests_are_reported(csv: Path, tmp_path: Path) -> None:
    """Unknown endings, missing files, wrong options and stills without a folder each get one line."""
    for uri, error in (
        (str(tmp_path / "none.gpx"), UsageError),
        (str(csv.with_suffix(".txt")), UsageError),
        (f"{csv}?begin=now", UsageError),
        (f"{csv}?start=now", UsageError),
        ("stills", UsageError),
    ):
        with pytest.raises(error):
            Geotagger.open(uri)


@given(st.text("hfov=mountgl35aspec,:.-+0123456789nia", max_size=40))
def test_no_request_crashes_a_parser(text: str) -> None:
    """Any text is a camera or an address, or gets a UsageError."""
    for parse in (CameraModel.parse, Address.parse):
        with contextlib.suppress(UsageError):
            parse(text)


@pytest.mark.data
def test_a_survey_overlaps_as_a_survey_should(imagery: Path) -> None:
    """18 stills 13.6 m apart from 40 m: 69 x 39 m at 43 mm per pixel, forward overlap 63 to 66 % on all three legs."""
    places = survey(imagery / "uav_brighton_beach")
    assert [round(place.gsd_m or 0, 3) for place in places] == pytest.approx([0.0433] * 18, abs=5e-4)
    rings = [ring_m(place, places[0]) for place in places]
    legs = [(i, i + 1) for i in range(17) if i % 6 != 5]
    forward = [overlap(rings[a], rings[b]) for a, b in legs]
    assert min(forward) > 0.63
    assert max(forward) < 0.66
    side = [max(overlap(rings[i], ring) for ring in rings[i // 6 * 6 + 6 : i // 6 * 6 + 12]) for i in range(12)]
    assert sum(side) / 12 == pytest.approx(0.605, abs=0.02)


@pytest.mark.data
def test_the_scale_is_what_the_pictures_themselves_show(imagery: Path) -> None:
    """The shift of neighbouring pictures, found by matching them, times the pixel size is the way flown, within 8 %."""
    cv2 = pytest.importorskip("cv2", reason="matching the pictures needs OpenCV")
    folder = imagery / "uav_brighton_beach"
    places, files = survey(folder), sorted(folder.glob("DJI_*.JPG"))
    finder = cv2.SIFT_create(800)
    for a, b in ((7, 8), (15, 16)):
        (points_a, marks_a), (points_b, marks_b) = (
            finder.detectAndCompute(cv2.imread(str(files[i]), cv2.IMREAD_REDUCED_GRAYSCALE_2), None) for i in (a, b)
        )
        pairs = cv2.BFMatcher().knnMatch(marks_a, marks_b, k=2)
        good = [m for m, n in pairs if m.distance < 0.7 * n.distance]
        move, _ = cv2.estimateAffinePartial2D(
            np.array([points_a[m.queryIdx].pt for m in good]), np.array([points_b[m.trainIdx].pt for m in good])
        )
        x, y = move @ np.array([400.0, 225.0, 1.0]) - (400.0, 225.0)
        flown_m = distance_m((places[a].lat_deg, places[a].lon_deg), (places[b].lat_deg, places[b].lon_deg))
        assert 2 * math.hypot(x, y) * (places[a].gsd_m or 0) == pytest.approx(flown_m, rel=0.08)


def survey(folder: Path) -> list[Place]:
    where = Geotagger.open("stills", directory=folder)
    pixels = np.zeros((900, 1600, 3), np.uint8)
    located = [where.locate(Frame(pixels, 0, 0, name=path.name))[1] for path in sorted(folder.glob("DJI_*.JPG"))]
    places = [place for place in located if place is not None]
    assert len(places) == 18
    return places


def ring_m(place: Place, origin: Place) -> np.ndarray:
    """Return a footprint in metres east and north of the origin."""
    east_m = distance_m((origin.lat_deg, 0.0), (origin.lat_deg, 1.0))
    north_m = distance_m((origin.lat_deg - 0.5, 0.0), (origin.lat_deg + 0.5, 0.0))
    ring = np.array(place.footprint) - (origin.lon_deg, origin.lat_deg)
    return (ring * (east_m, north_m)).astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Share of ``a`` that ``b`` covers."""
    cv2 = pytest.importorskip("cv2", reason="polygons are cut with OpenCV")
    return float(cv2.intersectConvexConvex(a, b)[0] / cv2.contourArea(a))


def still(folder: Path, name: str, content: bytes) -> Frame:
    (folder / name).write_bytes(content)
    return Frame(np.zeros((3, 4, 3), np.uint8), 0, 0, name=name)


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    stills: dict[str, bytes] = runpy.run_path(str(CORPUS / "make.py"))["stills"]()
    return stills


def test_a_camera_decides_where_the_gimbal_is_not_known(tmp_path: Path, made: dict[str, bytes]) -> None:
    """Three exact zeros against a nose to the east: no place, until --camera says where the gimbal looks."""
    name = "gimbal-zero-nose-east.jpg"
    frame = still(tmp_path, name, made[name])
    where = Geotagger.open("stills", directory=tmp_path)
    assert where.locate(frame).place is None
    assert "0, 0, 0 is not believed" in where.refused[0]
    place = Geotagger.open("stills", "f35=24,gimbal=-90", directory=tmp_path).locate(frame).place
    assert place is not None
    assert distance_m((place.lat_deg, place.lon_deg), (-34.123456, -58.654321)) < 0.1


def test_digital_zoom_narrows_the_ground(tmp_path: Path, made: dict[str, bytes]) -> None:
    """At 2.5 times, the ground sample distance is 2.5 times smaller, with the picture's lens and a given one."""
    for camera in (None, "f35=24"):
        places = []
        for name in ("zoom-0.jpg", "zoom-2-5.jpg"):
            where = Geotagger.open("stills", camera, directory=tmp_path)
            place = where.locate(still(tmp_path, name, made[name])).place
            assert place is not None
            assert place.gsd_m is not None
            places.append(place.gsd_m)
        assert places[0] / places[1] == pytest.approx(2.5)


def test_a_start_keeps_the_plus_of_its_offset(tmp_path: Path) -> None:
    """A plus in a query is not a blank: 12:00 at +02:00 is 10:00 UTC."""
    csv = tmp_path / "t.csv"
    csv.write_text("time,lat,lon\n2026-05-01T10:00:00Z,47,8\n")
    for start in ("2026-05-01T12:00:00+02:00", "2026-05-01T12:00:00%2B02:00", "20260501T120000+0200"):
        pose = Geotagger.open(f"{csv}?start={start}").locate(frame(media_ns=0)).pose
        assert pose is not None
        assert (pose.lat_deg, pose.quality) == (47, "fix")
