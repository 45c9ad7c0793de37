"""Tiles: every piece of a frame judged in one engine call, besides the whole.

Covers: runtime/window.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.errors import UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.observe import Observer
from overflight.runtime.pose.footprint import Place
from overflight.runtime.pose.geotag import Location
from overflight.runtime.tiles import GSD_M, MOST_TILES, Tiling, cut, window_gsd_m
from overflight.runtime.window import Window

pytest.importorskip("onnxruntime")


def quilt() -> NDArray[np.uint8]:
    """Return red, green, blue over blue, blue, red."""
    colours = {"r": (250, 30, 30), "g": (30, 250, 30), "b": (30, 30, 250)}
    rows = [np.concatenate([np.full((60, 80, 3), colours[c], np.uint8) for c in row], axis=1) for row in ("rgb", "bbr")]
    return np.concatenate(rows)


class Counting:
    """An engine that counts its calls and the frames of each."""

    def __init__(self, overflight: Overflight) -> None:
        self._engine = overflight.engine
        self.info, self.side, self.width = self._engine.info, self._engine.side, self._engine.width
        self.batches: list[int] = []

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(frames))
        return self._engine.embed(frames)

    def close(self) -> None:
        self._engine.close()


def test_each_tile_gets_its_own_label_in_one_call(colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """The whole frame's answer is what it is without tiles."""
    with Overflight.load(colour_bundle, colour_bank) as overflight:
        engine = Counting(overflight)
        frame = Frame(quilt(), 0, time.monotonic_ns())
        observer = Observer(engine, colour_bank, colour_bundle.manifest.resize)
        whole = observer.observe(observer.prepare(frame), {})
        tiled = Observer(engine, colour_bank, colour_bundle.manifest.resize, tiling=Tiling.parse("2x3"))
        split = tiled.observe(tiled.prepare(frame), {})
    assert engine.batches == [1, 7]
    assert split.observation.tiles is not None
    assert split.observation.tiles.labels == ("red", "green", "blue", "blue", "blue", "red")
    assert (split.observation.tiles.rows, split.observation.tiles.columns) == (2, 3)
    assert split.observation.scores == whole.observation.scores
    np.testing.assert_array_equal(split.embedding, whole.embedding)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 6), st.integers(1, 4))
def test_tiles_cover_a_picture_and_are_alike(height: int, width: int, rows: int, columns: int) -> None:
    """One size, no gap, row by row."""
    rows, columns = min(rows, height), min(columns, width)
    numbers = np.arange(height * width, dtype=np.int64).reshape(height, width)
    tiles: list[Any] = [*cut(numbers, rows, columns)]  # type: ignore[arg-type]
    assert len(tiles) == rows * columns
    assert len({tile.shape for tile in tiles}) == 1
    assert set(np.concatenate([np.ravel(tile) for tile in tiles]).tolist()) == set(range(height * width))


@pytest.mark.parametrize(
    ("size", "gsd_m", "grid"),
    [
        ((720, 1280), None, (2, 3)),
        ((200, 224), None, (1, 1)),
        ((2160, 3840), None, (4, 6)),
        ((720, 1280), 0.5, (4, 6)),
        ((720, 1280), 0.1, (1, 2)),
        ((720, 1280), 0.01, (1, 1)),
        ((720, 1280), 3.0, (4, 6)),
    ],
)
def test_auto_follows_the_size_and_the_ground(
    size: tuple[int, int], gsd_m: float | None, grid: tuple[int, int]
) -> None:
    """A frame close to the ground is not split; one from high up is, as far as its pixels carry."""
    assert Tiling.parse("auto").grid(*size, 224, gsd_m) == grid


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.floats(0.001, 10))
def test_auto_is_bounded(height: int, width: int, gsd_m: float) -> None:
    """No frame asks for more than one engine call holds."""
    rows, columns = Tiling().grid(height, width, 224, gsd_m)
    assert 1 <= rows * columns <= MOST_TILES


@pytest.mark.parametrize("text", ["5", "0x3", "9x9", "axb", "3x", ""])
def test_a_grid_that_is_none_is_refused(text: str) -> None:
    """With the option's name and an example."""
    with pytest.raises(UsageError, match=r"--tiles .*expected auto"):
        Tiling.parse(text)


def test_a_window_of_a_mosaic_has_a_ground_sample_distance() -> None:
    """The one that its georeference gives; a window without one has none."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    placed = Window(0, 0, 4, 4, (0.0, 0.05, 0.0, 0.0, 0.0, -0.05), 32633, gsd_m=0.05)
    assert window_gsd_m(Frame(pixels, 0, 0, window=placed)) == 0.05
    assert window_gsd_m(Frame(pixels, 0, 0, window=Window(0, 0, 4, 4))) is None
    assert window_gsd_m(Frame(pixels, 0, 0)) is None


def test_tiles_survive_the_journal(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """What was written is read back."""
    from overflight.runtime.flight.directory import JOURNAL
    from overflight.runtime.flight.journal_reader import read_observations
    from overflight.runtime.flight.run import fly

    with Overflight.load(colour_bundle, colour_bank, tiling=Tiling(2, 2)) as overflight:
        fly(overflight, "test://?frames=3&fps=0&size=64x48", tmp_path / "flight")
    for observation in read_observations(tmp_path / "flight" / JOURNAL):
        assert observation.tiles is not None
        assert len(observation.tiles.labels) == len(observation.tiles.scores) == 4


def test_a_tiled_frame_is_located_once(colour_bundle: Bundle, colour_bank: LabelBank) -> None:
    """Its place decides the grid and is written into the observation: one look-up serves both."""
    located: list[int] = []
    place = Place(47.0, 8.0, error_m=1.0, gsd_m=GSD_M / 2)

    def locate(frame: Frame) -> Location:
        located.append(frame.number)
        return Location(None, place)

    with Overflight.load(colour_bundle, colour_bank) as overflight:
        for tiling in (Tiling(), None):
            observer = Observer(overflight.engine, colour_bank, colour_bundle.manifest.resize, tiling=tiling)
            seen = observer.observe(observer.prepare(Frame(quilt(), 0, time.monotonic_ns())), {}, locate)
            assert seen.observation.place is place
    assert located == [0, 0]
