"""The studies of changes, on answers that are known: tiles, matched histograms, alignment, areas, recall, series.

Covers: bench/studies/changes.py bench/studies/series.py bench/studies/change_archive.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from overflight.bench.studies import change_archive, changes, series
from overflight.station.changes.score import Background
from overflight.station.search.changed import ChangeHit, ChangesFound, Seen
from overflight.station.series.record import Interval

RED, GREEN = (220, 30, 30), (30, 220, 30)


def ground(side: int = 256) -> Any:
    cv2: Any = pytest.importorskip("cv2")
    random = np.random.default_rng(3)
    pixels = np.full((side, side, 3), 110, np.uint8)
    for _ in range(side):
        x, y = random.integers(0, side, 2).tolist()
        cv2.rectangle(pixels, (x, y), (x + 9, y + 6), random.integers(20, 255, 3).tolist(), -1)
    return pixels


def colour(pictures: Any) -> Any:
    """Embed a picture as the direction of its mean colour."""
    means = np.array([picture.reshape(-1, 3).mean(axis=0) for picture in pictures], np.float32)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def pair(changed: bool) -> Any:
    before = np.full((64, 64, 3), RED, np.uint8)
    after, mask = before.copy(), np.zeros((64, 64), np.uint8)
    if changed:
        after[:16, :16], mask[:16, :8] = GREEN, 1
    return before, after, mask


def test_tiles_and_their_shares_have_one_order() -> None:
    shares = changes.covered_shares([pair(True)])
    assert shares.shape == (1, 16)
    assert shares[0].tolist() == [0.5] + [0.0] * 15
    before, after = changes.embed_pairs([pair(True)], colour)[0]
    assert np.flatnonzero((before * after).sum(axis=1) < 0.99).tolist() == [0]


def test_a_matched_histogram_removes_light() -> None:
    picture = ground()
    darker = (picture.astype(float) * 0.6).astype(np.uint8)
    plain, matched = (changes._difference(picture, one) for one in (darker, changes._matched(darker, picture)))
    assert plain.min() > 20
    assert matched.max() < 2


def test_orb_undoes_a_shift() -> None:
    picture = ground(320)
    before, after = np.ascontiguousarray(picture[20:276, 20:276]), np.ascontiguousarray(picture[14:270, 11:267])
    inner = slice(24, -24)
    plain = np.abs(before[inner, inner].astype(float) - after[inner, inner]).mean()
    aligned = np.abs(before[inner, inner].astype(float) - changes._aligned(after, before)[inner, inner]).mean()
    assert aligned < plain / 4


def test_the_area_and_its_interval() -> None:
    truth = np.arange(40).reshape(10, 4) % 4 == 0
    assert changes._interval(truth.astype(float), truth, draws=50) == [1.0, 1.0, 1.0]
    assert changes._interval(1 - truth.astype(float), truth, draws=50)[0] == 0.0
    noise = np.random.default_rng(0).random((10, 4))
    area, low, high = changes._interval(noise, truth, draws=200)
    assert low < area < high
    assert low < 0.5 < high


def test_season_pairs_are_held_out() -> None:
    """A pair that differs from all others in a way of its own is not forgiven because it is in the background."""
    random = np.random.default_rng(1)
    before = random.normal(size=(16, 64)).astype(np.float32)
    usual, own = np.eye(64, dtype=np.float32)[:2]
    season = [(before, before + random.normal(1, 0.1, (16, 1)).astype(np.float32) * usual) for _ in range(11)]
    odd = (before, before + 3 * own + random.normal(0, 0.01, (16, 64)).astype(np.float32))
    counts = changes._season_only([*season, odd], [None] * 12)["false changes"]
    assert counts[-1] == 16
    assert sum(counts[:-1]) <= 2


def test_a_series_is_put_into_its_interval() -> None:
    pytest.importorskip("cv2")
    pairs = [pair(True), pair(False)]
    made = [series.embed_series(before, after, colour) for before, after, _ in pairs]
    assert made[0].shape == (4, 16, 3)
    none = Background(np.empty((0, 3), np.float32), 0.05, 0.02, "pairs", 100)
    found = series.answers(made, [none, none], changes.covered_shares(pairs))
    assert found["tiles under the mask"] == {"right interval": 1}
    assert found["other tiles"] == {"unchanged": 31}
    assert found["named"]["another interval"] == 0


def test_only_evident_intervals_are_named() -> None:
    def interval(before: int, *, evident: bool) -> Interval:
        return Interval(
            before=before, after=before + 1, compared=16, changed=4, share=0.25, low=0.1, high=0.5, evident=evident
        )

    found = [interval(0, evident=True), interval(1, evident=True), interval(2, evident=False)]
    assert series.named_intervals(found) == {"right interval": 1, "another interval": 1, "none": 0}
    assert series.named_intervals([interval(1, evident=False)])["none"] == 1


def answer(*tiles: tuple[str, int]) -> ChangesFound:
    hits = []
    for name, tile in tiles:
        seen = Seen(1, "f" * 16, name, 0, tile, "2018", None, "number")
        hits.append(
            ChangeHit(score=0.1, background=90.0, before=seen, after=seen, lat_deg=0.0, lon_deg=0.0, ring=((0.0, 0.0),))
        )
    return ChangesFound(
        before="", after="houses", hits=tuple(hits), best=tuple(hits), searched=32, flight_pairs=2, undated=(),
        unplaced=0, unknown=0, cutoff=0.05, false_alarm=0.05, held_out=80,
    )  # fmt: skip


def test_recall_counts_the_best_tiles_and_chance() -> None:
    right = np.zeros((2, 16), bool)
    right[1, 3] = True
    first = [("levir01-2018.tif", 4)] + [("levir00-2018.tif", tile) for tile in range(1, 10)]
    sixth = first[1:6] + first[:1] + first[6:]
    found = change_archive.recall([answer(*first), answer(*sixth)], right)
    assert found["recall at 1"] == [0.5, round(1 / 32, 3)]
    assert found["recall at 5"] == [0.5, round(5 / 32, 3)]
    assert found["recall at 10"] == [1.0, round(10 / 32, 3)]
    assert found["precision at 10"][0] == 0.1


def test_a_season_pair_is_never_right() -> None:
    right = np.ones((2, 16), bool)
    found = change_archive.recall([answer(*[("SJER002-2018.tif", tile) for tile in range(1, 11)])], right)
    assert found["recall at 10"][0] == 0.0
