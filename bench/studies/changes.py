"""How well the change score finds changed tiles, next to plain differences: python -m overflight.bench.studies.changes.

Needs ``../shared/data/levir_cd`` (pairs with masks of changed buildings) and ``neon_pairs`` (season only). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overflight.export.encode import TextEncoder
from overflight.export.prompts import read_templates
from overflight.export.statistics import auroc
from overflight.runtime.sources.image import opencv
from overflight.station.changes.retrieve import ChangeQuery, rank
from overflight.station.changes.score import Background, fit_background, other_light
from overflight.station.ground import open_picture
from overflight.station.ground.towers import image_tower, open_bundle
from overflight.station.search.terms import embed_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overflight.station.ground.tiles import Embed

SIDE = 4  # tiles along an edge
COVERED = 0.05  # share of a tile under the mask from which it counts as changed
QUERIES = (
    "new houses on bare soil", "new buildings on grassland", "new residential area on bare land", "houses appeared",
    "meadow became residential area", "forest became residential area", "new roofs on bare land", "new houses",
    "bare land turned into residential area", "new buildings",
)  # fmt: skip
Picture = NDArray[np.uint8]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    levir, neon = read_levir(given.data), read_neon(given.data)
    with image_tower(bundle) as embed:
        changed, season = embed_pairs(levir, embed), embed_pairs(neon, embed)
        light = [_light(embed, pair[0]) for pair in levir]
    covered = covered_shares(levir)
    truth = covered > COVERED
    scores = _scores(levir, changed, season, light)
    found: dict[str, Any] = {"model": bundle.manifest.name, "tiles": int(truth.size), "changed": int(truth.sum())}
    found["auc"] = {name: _interval(values, truth) for name, values in scores.items()}
    found["correlation with coverage"] = {
        name: round(float(np.corrcoef(values.ravel(), covered.ravel())[0, 1]), 3) for name, values in scores.items()
    }
    found["auc against unchanged and season-only tiles"] = _with_season(levir, neon, changed, season, truth)
    found["season only"] = _season_only(season, neon)
    with TextEncoder(bundle) as encoder:
        found["retrieval"] = _retrieval(encoder, changed, covered)
    print(json.dumps(found, indent=1))


def read_levir(data: Path) -> list[tuple[Picture, Picture, Picture]]:
    """Read the pairs, RGB, with their masks (0 or 1)."""
    cv2 = opencv()
    names = sorted(path.name for path in (data / "levir_cd" / "A").glob("*.png"))
    read = [
        [cv2.imread(str(data / "levir_cd" / part / name))[:, :, ::-1] for part in ("A", "B", "label")] for name in names
    ]
    return [(a, b, (mask[:, :, 0] > 127).astype(np.uint8)) for a, b, mask in read]


def read_neon(data: Path) -> list[tuple[Picture, Picture]]:
    """Read the pairs that a season alone altered, RGB."""
    pairs = []
    for path in sorted((data / "neon_pairs" / "a").glob("*.tif")):
        pictures = [open_picture(path), open_picture(data / "neon_pairs" / "b" / path.name)]
        a, b = (one.read(0, 0, one.height, one.width)[0] for one in pictures)
        for one in pictures:
            one.close()
        pairs.append((a, b))
    return pairs


def tiles_of(picture: NDArray[Any]) -> list[NDArray[Any]]:
    """Cut a picture into SIDE x SIDE tiles, row by row."""
    size = picture.shape[0] // SIDE
    return [
        np.ascontiguousarray(picture[row * size : (row + 1) * size, column * size : (column + 1) * size])
        for row in range(SIDE)
        for column in range(SIDE)
    ]


def covered_shares(levir: Sequence[tuple[Picture, Picture, Picture]]) -> NDArray[np.float64]:
    """Return the share of each tile under its pair's mask ``[P, T]``."""
    shares = [[tile.mean() for tile in tiles_of(mask)] for *_, mask in levir]
    return np.array(shares, np.float64)


def embed_pairs(
    pairs: Sequence[tuple[Picture, ...]], embed: Embed
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Embed the tiles ``[T, D]`` of both dates of each pair."""
    return [(embed(tiles_of(before)), embed(tiles_of(after))) for before, after, *_ in pairs]


def _light(embed: Any, picture: Picture) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    before, after = [], []
    for tile in tiles_of(picture)[::4]:
        made = embed([tile, *other_light(tile)])
        before.append(np.repeat(made[:1], len(made) - 1, axis=0))
        after.append(made[1:])
    return np.concatenate(before), np.concatenate(after)


def _scores(levir: Any, changed: Any, season: Any, light: Any) -> dict[str, NDArray[np.float64]]:
    pairs = fit_background(season)
    own = [fit_background([one], origin="light") for one in light]
    return {
        "ours, season pairs": np.stack([pairs.scores(*pair) for pair in changed]),
        "ours, own light": np.stack([one.scores(*pair) for one, pair in zip(own, changed, strict=True)]),
        "ours, 1 - cosine": np.stack([1 - (a * b).sum(axis=1) for a, b in changed]),
        "pixel difference": np.stack([_difference(a, b) for a, b, _ in levir]),
        "histogram matching": np.stack([_difference(a, _matched(b, a)) for a, b, _ in levir]),
        "ORB-registered difference": np.stack([_difference(a, _aligned(b, a)) for a, b, _ in levir]),
    }


def _difference(a: Picture, b: Picture) -> NDArray[np.float64]:
    return np.array([tile.mean() for tile in tiles_of(np.abs(a.astype(np.float64) - b))])


def _matched(picture: Picture, reference: Picture) -> Picture:
    """Give each channel the histogram of the reference."""
    found = np.empty_like(picture)
    for channel in range(3):
        values, places, counts = np.unique(picture[:, :, channel].ravel(), return_inverse=True, return_counts=True)
        wanted, wanted_counts = np.unique(reference[:, :, channel].ravel(), return_counts=True)
        mapped = np.interp(np.cumsum(counts) / places.size, np.cumsum(wanted_counts) / reference[:, :, 0].size, wanted)
        found[:, :, channel] = mapped[places].reshape(picture.shape[:2]).round()
        assert len(values) == len(mapped)
    return found


def _aligned(picture: Picture, reference: Picture) -> Picture:
    """Warp a picture onto the reference by ORB features and a homography; unchanged where too few agree."""
    cv2 = opencv()
    orb = cv2.ORB_create(1000)
    (one, first), (two, second) = (orb.detectAndCompute(np.ascontiguousarray(p), None) for p in (picture, reference))
    if first is None or second is None:
        return picture
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)
    if len(matches) < 8:
        return picture
    source = np.array([one[match.queryIdx].pt for match in matches], np.float32)
    target = np.array([two[match.trainIdx].pt for match in matches], np.float32)
    matrix, inliers = cv2.findHomography(source, target, cv2.RANSAC, 3.0)
    if matrix is None or int(inliers.sum()) < 8:
        return picture
    size = reference.shape[1], reference.shape[0]
    warped: Picture = cv2.warpPerspective(np.ascontiguousarray(picture), matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return warped


def _area(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a changed tile scores above an unchanged one."""
    return auroc(scores[truth], scores[~truth])


def _interval(scores: NDArray[np.float64], truth: NDArray[np.bool_], draws: int = 1000) -> list[float]:
    """Return the area and its 95 % interval, by drawing whole pairs: tiles of one pair are alike."""
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        rows = random.integers(0, len(scores), len(scores))
        if truth[rows].any() and not truth[rows].all():
            drawn.append(_area(scores[rows], truth[rows]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [round(value, 3) for value in (_area(scores, truth), float(low), float(high))]


def _with_season(levir: Any, neon: Any, changed: Any, season: Any, truth: NDArray[np.bool_]) -> dict[str, list[float]]:
    """Add the season-only tiles as unchanged; each season pair is scored with the directions of the others."""
    held_out = [fit_background([*season[:n], *season[n + 1 :]]).scores(*pair) for n, pair in enumerate(season)]
    fitted = fit_background(season)
    rows = {
        "ours, season pairs": [*(fitted.scores(*pair) for pair in changed), *held_out],
        "ours, 1 - cosine": [1 - (a * b).sum(axis=1) for a, b in [*changed, *season]],
        "pixel difference": [_difference(a, b) for a, b, *_ in [*levir, *neon]],
        "histogram matching": [_difference(a, _matched(b, a)) for a, b, *_ in [*levir, *neon]],
        "ORB-registered difference": [_difference(a, _aligned(b, a)) for a, b, *_ in [*levir, *neon]],
    }
    both = np.concatenate([truth, np.zeros((len(neon), truth.shape[1]), bool)])
    return {name: _interval(np.stack(values), both) for name, values in rows.items()}


def _season_only(season: Any, neon: Any) -> dict[str, Any]:
    """Count false changes of pairs that only a season altered, each held out of the background."""
    counts = []
    for number, pair in enumerate(season):
        background: Background = fit_background([*season[:number], *season[number + 1 :]])
        counts.append(int((background.scores(*pair) > background.high).sum()))
    tiles = SIDE * SIDE
    return {
        "pairs": len(neon),
        "tiles a pair": tiles,
        "false changes": counts,
        "a pair": round(float(np.mean(counts)), 2),
    }


def _retrieval(encoder: TextEncoder, changed: Any, covered: NDArray[np.float64]) -> dict[str, Any]:
    before, after = (np.concatenate([pair[place] for pair in changed]) for place in (0, 1))
    forms = read_templates("aerial")
    found: dict[str, Any] = {}
    for least in (0.05, 0.2, 0.3):
        truth = covered.ravel() > least
        ranks = []
        for text in QUERIES:
            query = ChangeQuery.parse(text)
            order = np.argsort(-rank(query, embed_texts(encoder, query.texts, forms), before, after), kind="stable")
            ranks.append(truth[order])
        hits = np.array(ranks)
        total, right = truth.size, int(truth.sum())
        found[f"coverage above {least}"] = {
            "relevant": f"{right} of {total}",
            **{
                f"recall at {k}": [
                    round(float(hits[:, :k].any(axis=1).mean()), 3),
                    round(1 - comb(total - right, k) / comb(total, k), 3),
                ]
                for k in (1, 5, 10)
            },
            "precision at 10": [round(float(hits[:, :10].mean()), 3), round(right / total, 3)],
        }  # fmt: skip
    return found


if __name__ == "__main__":
    main()
