"""The GeoTIFF corpus: every file gives what expected.json says of it, and can be made again."""

from __future__ import annotations

import json
import runpy
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("tifffile")

from overflight.runtime.errors import OverflightError
from overflight.runtime.sources.mosaic import Mosaic

HERE = Path(__file__).parent / "geotiff"
EXPECTED: dict[str, dict[str, Any]] = json.loads((HERE / "expected.json").read_text())
PIXELS = ((0, 0), (17, 29), (39, 47))  # row and column of those that the table holds, blue before red


def found(path: Path) -> dict[str, Any]:
    """Return what a file gives, in the words of the table."""
    try:
        with closing(Mosaic(path, 48)) as mosaic:
            frames = list(mosaic.frames())
            window = frames[0].window
            assert window is not None
            return {
                "transform": window.transform and list(window.transform),
                "epsg": window.epsg,
                "gsd_m": window.gsd_m,
                "stretch": window.stretch and list(window.stretch),
                "pixels": [frames[0].pixels[place].tolist() for place in PIXELS],
                "notes": mosaic.notes,
            }
    except OverflightError as error:
        return {"error": str(error)}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_gives_what_the_table_says(name: str) -> None:
    """Where it lies as GDAL reads it, what is shown, and each note; or the refusal."""
    values, expected = found(HERE / name), EXPECTED[name]
    assert ("error" in values) == ("error" in expected), values
    if "error" in expected:
        assert expected["error"] in values["error"]
        assert "\n" not in values["error"]
        return
    for field in ("transform", "gsd_m", "stretch"):
        wanted = expected[field]
        assert values[field] == (wanted if wanted is None else pytest.approx(wanted, rel=1e-9, abs=1e-6)), field
    assert values["epsg"] == expected["epsg"]
    assert np.abs(np.subtract(values["pixels"], expected["pixels"])).max() <= 1
    assert len(values["notes"]) == len(expected["notes"]), values["notes"]
    for note, part in zip(values["notes"], expected["notes"], strict=True):
        assert part in note


def test_the_corpus_can_be_made_again(tmp_path: Path) -> None:
    """The script writes a file of every name in the table, with the same values, and fetches nothing."""
    runpy.run_path(str(HERE / "make.py"))["main"](tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == sorted(EXPECTED)
    for name in ("uint16.tif", "geo-matrix.tif", "few-counts.tif"):
        made, kept = found(tmp_path / name), found(HERE / name)
        made["notes"], kept["notes"] = len(made.get("notes", [])), len(kept.get("notes", []))
        assert str(made).replace(str(tmp_path), "") == str(kept).replace(str(HERE), "")
