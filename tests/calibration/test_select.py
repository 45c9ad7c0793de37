"""Which frames calibrate: distinct, of the world, and never those that judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overflight.calibration.select import divide, find_candidates, k_centres, part_sizes
from overflight.runtime.bundle import Resize
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.duplicates import difference_hash, distance, emptiness

RESIZE = Resize(32, "bicubic", "squash")


def silent(share: float) -> None:
    assert 0 <= share <= 1


def write(folder: Path, pictures: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> str:
    cv2 = pytest.importorskip("cv2")
    folder.mkdir(exist_ok=True)
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{index}.png"), picture)
    return str(folder)


def test_random_and_constant_frames_are_refused(tmp_path: Path) -> None:
    """Calibrating on noise is the peers' silent default; here it is an error that counts what was refused."""
    random = np.random.default_rng(0)
    noise = write(tmp_path / "noise", [random.integers(0, 256, (60, 80, 3), np.uint8) for _ in range(40)])
    flat = write(tmp_path / "flat", [np.full((60, 80, 3), level, np.uint8) for level in range(0, 200, 5)])
    with pytest.raises(UsageError, match="40 constant, 40 noise"):
        find_candidates([noise, flat], RESIZE, 64, silent)


def test_copies_are_taken_once(scenery: Path, tmp_path: Path) -> None:
    """The same picture again, brighter and recompressed, adds nothing."""
    cv2 = pytest.importorskip("cv2")
    paths = sorted(scenery.rglob("*.png"))
    once = find_candidates([str(scenery)], RESIZE, 200, silent)
    for index, path in enumerate(paths[:20]):
        brighter = np.clip(cv2.imread(str(path)).astype(np.int16) + 6, 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), brighter)
    twice = find_candidates([str(scenery), str(tmp_path)], RESIZE, 200, silent)
    assert len(twice.frames) == len(once.frames)
    assert twice.refused["copy"] >= 20


def test_too_few_frames_are_refused(scenery: Path) -> None:
    """Thirty is the least that a hold-out can be cut from."""
    with pytest.raises(UsageError, match="at least 32"):
        find_candidates([str(next(scenery.rglob("*.png")))], RESIZE, 64, silent)


def test_parts_are_disjoint_and_cover_every_brightness(scenery: Path) -> None:
    """What judges is never what calibrates, and ranges are read in the dark as in the light."""
    found = find_candidates([str(scenery)], RESIZE, 64, silent)
    embeddings = np.random.default_rng(0).standard_normal((len(found.frames), 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    picked = [one for one in divide(found, embeddings, 30) if one is not None]
    parts = {part: {one.sha256 for one in picked if one.part == part} for part in ("ranges", "tuning", "holdout")}
    ranges, tuning, holdout = part_sizes(len(found.frames), 30)
    assert [len(parts[part]) for part in ("ranges", "tuning", "holdout")] == [ranges, tuning, holdout]
    assert not parts["ranges"] & parts["tuning"]
    assert not parts["ranges"] & parts["holdout"]
    assert not parts["tuning"] & parts["holdout"]
    strata = [one.stratum for one in picked if one.part == "ranges"]
    assert min(strata.count(stratum) for stratum in ("dark", "medium", "bright")) >= ranges // 3 - 1
    assert {one.folder for one in picked} == {"field", "town"}


@settings(max_examples=50)
@given(st.integers(32, 3000), st.integers(16, 512))
def test_part_sizes_never_exceed_what_there_is(available: int, count: int) -> None:
    """Few frames make small parts, never overlapping or empty ones."""
    ranges, tuning, holdout = part_sizes(available, count)
    assert min(ranges, tuning, holdout) > 0
    assert ranges + tuning + holdout <= available
    assert ranges <= count


def test_k_centres_reach_every_cluster_before_any_twice() -> None:
    """Five tight groups of very different sizes: five centres are one of each."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), [200, 3, 40, 1, 9])
    rows = np.eye(5)[groups] + 0.01 * random.standard_normal((len(groups), 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert set(groups[k_centres(rows.astype(np.float32), 5)]) == set(range(5))


def test_emptiness_knows_the_world_from_noise(scenery: Path) -> None:
    """Smooth scenes pass, noise and flat colour do not."""
    random = np.random.default_rng(0)
    found = find_candidates([str(scenery)], RESIZE, 64, silent)
    assert all(emptiness(frame) is None for frame in found.frames)
    assert emptiness(random.integers(0, 256, (64, 64, 3), np.uint8)) == "noise"
    assert emptiness(np.full((64, 64, 3), 90, np.uint8)) == "constant"


def test_likeness_is_small_for_the_same_scene_and_large_for_another() -> None:
    """Noise and brightness move few of the 64 bits."""
    random = np.random.default_rng(0)
    scene = np.kron(random.integers(20, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    other = np.kron(random.integers(20, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noisy = np.clip(scene.astype(np.int16) + random.integers(-3, 14, scene.shape), 0, 255).astype(np.uint8)
    known = np.array([difference_hash(scene)], np.uint64)
    assert distance(difference_hash(noisy), known)[0] <= 3
    assert distance(difference_hash(other), known)[0] > 10


@pytest.mark.data
def test_real_aerial_frames_are_never_called_empty(imagery: Path, tmp_path: Path) -> None:
    """Forest, desert and sea among them."""
    import zipfile

    with zipfile.ZipFile(imagery / "aid_rsicd.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::100]
        archive.extractall(tmp_path, names)
    found = find_candidates([str(tmp_path)], Resize(64, "bicubic", "squash"), 200, silent)
    assert not found.refused.get("noise")
    assert found.refused.get("constant", 0) <= 1


@pytest.mark.slow
@pytest.mark.data
def test_heights_are_read_and_make_strata(imagery: Path, scenery: Path) -> None:
    """A survey's stills tell their height; frames without one form their own strata."""
    survey = imagery / "uav_brighton_beach"
    found = find_candidates([str(survey), str(scenery)], RESIZE, 200, silent)
    heights = [one.height_m for one in found.described if one.height_m is not None]
    assert len(heights) >= 10
    assert 20 < min(heights) <= max(heights) < 80
    embeddings = np.random.default_rng(0).standard_normal((len(found.frames), 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    strata = {one.stratum for one in divide(found, embeddings, 48) if one is not None}
    assert strata >= {"dark", "medium", "bright"}
    assert any(stratum.endswith((", low", ", high")) for stratum in strata)
