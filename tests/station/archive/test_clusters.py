"""Clusters: three colours are three groups, whatever flight they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from overflight.runtime.errors import UsageError
from overflight.station.archive.clusters import cluster
from overflight.station.archive.pictures import write_row_picture

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.station.archive import Archive

pytest.importorskip("sklearn")


def test_frames_are_grouped_by_content(archive: Archive, tmp_path: Path) -> None:
    """Two reds of two flights, two greens, one blue; each with a typical picture."""
    groups = cluster(archive, archive.flights()[0].tower, 3)
    assert sorted((group.size, *group.labels) for group in groups) == [(1, "blue"), (2, "green"), (2, "red")]
    red = next(group for group in groups if "red" in group.labels)
    assert red.flights == {"first": 1, "second": 1}
    picture = write_row_picture(archive, red.typical_row, tmp_path / "pictures" / "1.jpg")
    assert picture is not None
    assert picture.read_bytes()[:2] == b"\xff\xd8"


def test_more_groups_than_frames_are_refused(archive: Archive) -> None:
    """Five frames do not make nine groups."""
    with pytest.raises(UsageError, match="--count"):
        cluster(archive, archive.flights()[0].tower, 9)
