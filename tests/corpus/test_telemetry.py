"""The telemetry corpus: every input gives what expected.json says of it, value by value, and can be made again.

Covers: runtime/pose/attitude_tags.py, runtime/pose/dataflash.py, runtime/pose/exif.py, runtime/pose/source.py,
runtime/pose/stills.py, runtime/pose/tag_blocks.py, runtime/pose/tag_values.py, runtime/pose/xmp.py.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from overflight.runtime.errors import OverflightError
from overflight.runtime.pose.record import Attitude, Pose
from overflight.runtime.pose.source import read_track
from overflight.runtime.pose.stills import read_still

HERE = Path(__file__).parent / "telemetry"
EXPECTED: dict[str, dict[str, Any]] = json.loads((HERE / "expected.json").read_text())
TRACKS = {".tlog", ".bin", ".log", ".klv", ".csv"}


def angles(attitude: Attitude | None) -> list[float] | None:
    return None if attitude is None else [attitude.yaw_deg, attitude.pitch_deg, attitude.roll_deg]


def described(pose: Pose) -> dict[str, Any]:
    return {
        "position": [pose.lat_deg, pose.lon_deg],
        "utc_ns": pose.utc_ns,
        "height": [pose.height_m, pose.height_above],
        "altitude_m": pose.altitude_m,
        "vehicle": angles(pose.vehicle),
        "gimbal": angles(pose.gimbal),
        "h_acc_m": pose.h_acc_m,
        "zoom": pose.zoom,
    }


def found(path: Path) -> dict[str, Any]:
    """Return what is read from an input, in the words of the table."""
    try:
        if path.suffix in TRACKS:
            track = read_track(path)
            pose = track.at(track.times_ns[0])
            assert pose is not None
            camera = track.camera_at(track.times_ns[0])
            counts = {"positions": len(track), "first_ns": track.times_ns[0]}
            return described(pose) | counts | {"hfov_deg": camera and camera.hfov_deg, "notes": list(track.refused)}
        still = read_still(path)
    except OverflightError as error:
        return {"error": str(error)}
    camera = still.lens.camera((4, 3))
    return described(still.pose) | {"hfov_deg": camera and camera.hfov_deg, "notes": list(still.notes)}


def assert_same(value: object, expected: object, where: str) -> None:
    match expected:
        case list() if where.startswith("notes"):
            assert isinstance(value, list)
            assert len(value) == len(expected), value
            for line, part in zip(value, expected, strict=True):
                assert part in line, line
        case str() if where == "error":
            assert isinstance(value, str)
            assert expected in value, value
        case list():
            assert isinstance(value, list), where
            assert len(value) == len(expected), where
            for one, other in zip(value, expected, strict=True):
                assert_same(one, other, where)
        case float():
            assert value == pytest.approx(expected, abs=1e-6 if where in {"gimbal", "position"} else 1e-3), where
        case _:
            assert value == expected, where


@pytest.mark.parametrize("name", EXPECTED)
def test_an_input_gives_what_the_table_says(name: str) -> None:
    """Position, heights, attitudes, time, lens, zoom and each note; or the refusal."""
    if name.endswith((".tlog", ".bin", ".log")):
        pytest.importorskip("pymavlink")
    values = found(HERE / name)
    expected = EXPECTED[name]
    assert ("error" in values) == ("error" in expected), values
    for field, value in expected.items():
        assert_same(values[field], value, field)


def test_the_corpus_can_be_made_again(tmp_path: Path) -> None:
    """The script writes every input of the table, byte for byte, and fetches nothing."""
    runpy.run_path(str(HERE / "make.py"))["main"](tmp_path)
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(made) == sorted(EXPECTED)
    assert all((HERE / name).read_bytes() == content for name, content in made.items())
