"""Map files, opened by GDAL: an independent reader.

Covers: runtime/geofiles/export.py, runtime/geofiles/geojson.py, runtime/geofiles/geometry.py,
runtime/geofiles/geopackage.py, runtime/geofiles/kml.py, runtime/geofiles/layers.py, runtime/geofiles/table.py.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.commands.flight import command
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.event import Event
from overflight.runtime.flight.journal import connect
from overflight.runtime.geofiles import FORMATS, export_flight
from overflight.runtime.geofiles.geometry import line, polygon
from overflight.runtime.geofiles.layers import iso, layers_of
from overflight.runtime.pose.camera_model import CameraModel
from overflight.runtime.pose.footprint import Place, locate
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.records import SCHEMA, Costs, FlightRecord, Observation, Score, encode_line

LABEL = 'flood, "deep" <b> é \x07'
T0 = 1_780_000_000_000_000_000


def observation(frame: int, *, pose: Pose | None = None, place: Place | None = None) -> Observation:
    score = Score(LABEL, 0.25, 0.75)
    return Observation(
        frame, 0, 5_000_000, LABEL, (score,), Costs(1, 2, 3), "b" * 16, "e" * 16,
        captured_utc_ns=T0 + frame * 1_000_000_000, pose=pose, place=place,
    )  # fmt: skip


def flight(lon: float = 149.0251, lat: float = -20.2533) -> list[Observation]:
    """Five positions going north-east, south of the equator, and one frame without any."""
    seen = [observation(9)]
    for i in range(5):
        pose = Pose(T0 + i, lat + i * 1e-4, lon + i * 1e-4, 100.0, gimbal=Attitude(45, -60, 0))
        seen.append(observation(i, pose=pose, place=locate(pose, CameraModel(71.6), (1600, 900))))
    return seen


def event(sequence: int, kind: str) -> Event:
    place = Place(-20.2533, 149.0251 + sequence * 1e-3, 7.5)
    return msgspec.convert(
        {"id": "f-1", "type": kind, "label": LABEL, "started_utc_ns": T0, "utc_ns": T0, "frame": 1, "score": 0.9,
         "sequence": sequence, "place": msgspec.to_builtins(place)},
        Event,
    )  # fmt: skip


@pytest.fixture
def flown(tmp_path: Path) -> Path:
    """Return a flight directory with a journal: six observations, one event in two steps."""
    record = FlightRecord(SCHEMA, "x", "h", {}, "m", "b", "e", "e", "n", "n", ("l",), T0)
    (tmp_path / "flight.json").write_bytes(msgspec.json.encode(record))
    journal = connect(tmp_path / "journal.sqlite")
    for seen in flight():
        journal.execute(
            "INSERT INTO observations (frame, captured_ns, record) VALUES (?, 0, ?)",
            (seen.frame, msgspec.json.encode(seen)),
        )
    for step in (event(0, "begin"), event(1, "end")):
        journal.execute(
            "INSERT INTO events (event, type, utc_ns, record) VALUES (?, ?, ?, ?)",
            (step.id, step.type, step.utc_ns, msgspec.json.encode(step)),
        )
    journal.close()
    return tmp_path


def gdal(path: Path, layer: str) -> dict[str, object]:
    """Read a layer with GDAL into GeoJSON; anything it warns of fails the test."""
    if shutil.which("ogr2ogr") is None:
        pytest.skip("GDAL is not installed: apt-get install gdal-bin")
    where = [] if path.suffix != ".geojson" else ["-where", f"layer = '{layer}'"]
    name = [layer] if path.suffix in (".gpkg", ".kml") else []
    done = subprocess.run(
        ["ogr2ogr", "-f", "GeoJSON", "/vsistdout/", str(path), *name, *where],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    read: dict[str, object] = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("format", ["gpkg", "geojson", "kml"])
def test_gdal_reads_what_was_written(flown: Path, format: str) -> None:  # noqa: A002 - the option's own name
    """GDAL finds five footprints, five observations, one track and one event, where and what they are."""
    exported = export_flight(flown, [format])
    assert exported.without_position == 1
    path = Path(exported.files[0])
    expected = {
        "footprints": (5, "Polygon"),
        "observations": (5, "Point"),
        "track": (1, "LineString"),
        "events": (1, "Point"),
    }
    for layer, (count, kind) in expected.items():
        features = gdal(path, layer)["features"]
        assert isinstance(features, list)
        assert len(features) == count
        assert features[0]["geometry"]["type"] == kind
        assert exported.features[layer] == count
    mark = gdal(path, "events")["features"]
    assert isinstance(mark, list)
    assert mark[0]["geometry"]["coordinates"][:2] == pytest.approx([149.0261, -20.2533])
    if format != "kml":
        properties = mark[0]["properties"]
        assert (properties["label"], properties["state"], properties["error_m"]) == (LABEL, "end", 7.5)


def test_a_geopackage_is_one(flown: Path) -> None:
    """GDAL says EPSG:4326 and the extent; the file carries GeoPackage's own marks and no log next to it."""
    if shutil.which("ogrinfo") is None:
        pytest.skip("GDAL is not installed: apt-get install gdal-bin")
    (path,) = export_flight(flown, ["gpkg"]).files
    reported = subprocess.run(["ogrinfo", "-so", "-al", path], capture_output=True, text=True, check=True)
    assert reported.stderr == ""
    assert reported.stdout.count('ID["EPSG",4326]') == 4
    assert "Extent: (149.02" in reported.stdout
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (0x47504B47,)
    assert connection.execute("PRAGMA user_version").fetchone() == (10300,)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    assert [p.name for p in flown.iterdir() if "gpkg" in p.name] == ["flight.gpkg"]


def test_geojson_keeps_rfc_7946(flown: Path) -> None:
    """Rings are closed and counter-clockwise, longitude first, and nothing is NaN."""
    (path,) = export_flight(flown, ["geojson"]).files
    read = json.loads(Path(path).read_text(), parse_constant=pytest.fail)
    for feature in read["features"]:
        if feature["geometry"]["type"] == "Polygon":
            (ring,) = feature["geometry"]["coordinates"]
            assert ring[0] == ring[-1]
            assert sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(ring)) > 0
            assert all(lon > 140 and lat < -20 for lon, lat in ring)


def test_csv_reads_back(flown: Path) -> None:
    """Every feature is one row with well-known text, labels whole."""
    (path,) = export_flight(flown, ["csv"]).files
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    marks = [row for row in rows if row["layer"] == "events"]
    assert (marks[0]["label"], marks[0]["wkt"]) == (LABEL, "POINT (149.0261000 -20.2533000)")
    assert {row["wkt"].split(" ")[0] for row in rows} == {"POINT", "POLYGON", "LINESTRING"}


@given(st.floats(-60, 60), st.floats(-0.01, 0.01), st.floats(0, 360))
def test_a_footprint_on_the_date_line_is_cut_in_two(lat: float, past: float, yaw: float) -> None:
    """No polygon reaches across the world, and the two halves keep the whole area."""
    place = locate(
        Pose(0, lat, (past + 360.0) % 360.0 - 180.0, 100.0, gimbal=Attitude(yaw, -60, 0)), CameraModel(71.6), (4, 3)
    )
    elsewhere = locate(Pose(0, lat, 10.0, 100.0, gimbal=Attitude(yaw, -60, 0)), CameraModel(71.6), (4, 3))
    assert place is not None
    assert elsewhere is not None
    cut, whole = polygon(place.footprint), polygon(elsewhere.footprint)
    assert cut.bounds()[0] >= -180.0
    assert cut.bounds()[1] <= 180.0
    assert all(max(p[0] for p in part) - min(p[0] for p in part) < 1.0 for part in cut.parts)
    assert sum(map(area, cut.parts)) == pytest.approx(area(whole.parts[0]), rel=1e-6)


def area(ring: tuple[tuple[float, float], ...]) -> float:
    west, south = ring[0]
    moved = [(lon - west, lat - south) for lon, lat in ring]
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in itertools.pairwise(moved)) / 2


def test_a_track_over_the_date_line_is_two_lines() -> None:
    """Going east past 180 the line ends at 180 and goes on at -180."""
    cut = line([(179.9, 10.0), (-179.9, 12.0)])
    assert cut.kind == "MultiLineString"
    assert [[lon for lon, _ in part] for part in cut.parts] == [[179.9, 180.0], [-180.0, -179.9]]
    assert [lat for part in cut.parts for _, lat in part] == pytest.approx([10.0, 11.0, 11.0, 12.0])


def test_stale_poses_draw_no_track() -> None:
    """A position that is only the last known one is shown as a point and left out of the track."""
    seen = [observation(i, pose=Pose(T0, 1.0 + i, 2.0, quality="stale")) for i in range(3)]
    layers, lost = layers_of(seen, [])
    assert [(layer.name, len(layer.features)) for layer in layers] == [("observations", 3)]
    assert lost == 0


def test_times_are_utc_to_the_millisecond() -> None:
    """ISO 8601 with Z; 0 is unknown."""
    assert iso(T0 + 123_456_789) == "2026-05-28T20:26:40.123Z"
    assert iso(0) is None


def test_the_command_says_what_it_wrote(flown: Path) -> None:
    """All formats at once, as text and as JSON, into another directory."""
    runner = CliRunner()
    done = runner.invoke(command, ["export", str(flown), "--format", ",".join(FORMATS), "--out", str(flown / "maps")])
    assert done.exit_code == 0, done.output
    assert "5 footprints, 5 observations, 1 track, 1 events; 1 observations have no position" in done.output
    assert sorted(p.name for p in (flown / "maps").iterdir()) == [f"flight.{name}" for name in sorted(FORMATS)]
    reported = json.loads(runner.invoke(command, ["export", str(flown), "--json"]).output)
    assert reported["features"]["footprints"] == 5


def test_what_cannot_be_exported_is_said(flown: Path, tmp_path: Path) -> None:
    """An unknown format, no flight, and a flight without positions each get one line."""
    with pytest.raises(UsageError, match="format shp: expected some of geojson"):
        export_flight(flown, ["shp"])
    with pytest.raises(UsageError, match="not a flight directory"):
        export_flight(tmp_path / "none", ["kml"])
    (flown / "journal.sqlite").unlink()
    (flown / "observations.jsonl").write_bytes(encode_line(observation(1)) + b'{"torn')
    with pytest.raises(OverflightError, match="none of its 1 observations has a position"):
        export_flight(flown, ["kml"])
