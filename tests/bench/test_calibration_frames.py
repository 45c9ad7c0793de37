"""Other quantisers get the frames that the bundle was calibrated with, or none and say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from overflight.bench.calibration_frames import calibration_frames
from overflight.bench.peers.traced import calibration_frames as frames_of
from overflight.bench.peers.traced import calibration_note, name_frames
from overflight.calibration.vary import vary
from overflight.runtime.bundle import Bundle
from overflight.runtime.evaluation.duplicates import hash_pixels
from overflight.runtime.evaluation.holdout import read_picked


def test_they_are_the_frames_of_our_own_ranges(calibrated_bundle: Bundle) -> None:
    """The frames of the part "ranges", in its order, and their varied copies; never one that is held out."""
    found = calibration_frames(calibrated_bundle)
    assert found is not None
    picked = read_picked(calibrated_bundle).frames
    own = [one.sha256 for one in picked if one.part == "ranges"]
    assert [hash_pixels(frame) for frame in found[: len(own)]] == own
    np.testing.assert_array_equal(found[len(own) :], vary(found[: len(own)]))
    held = {one.sha256 for one in picked if one.part == "holdout"}
    assert not held & {hash_pixels(frame) for frame in found}


def test_a_bundle_without_a_calibration_has_none(tower_bundle: Bundle) -> None:
    """Nothing is made up."""
    assert calibration_frames(tower_bundle) is None


def test_frames_that_are_gone_are_not_replaced(calibrated_bundle: Bundle, tmp_path: Path) -> None:
    """A part of the frames would be another calibration."""
    from overflight.runtime.evaluation.holdout import FRAMES

    copy = tmp_path / "moved"
    shutil.copytree(calibrated_bundle.directory, copy)
    text = (copy / FRAMES).read_text()
    source = read_picked(calibrated_bundle).frames[0].source
    (copy / FRAMES).write_text(text.replace(source, str(tmp_path / "gone")))
    from overflight.runtime.bundle import seal

    assert calibration_frames(seal(copy, calibrated_bundle.manifest)) is None


def test_a_peer_says_where_its_frames_are_from(tmp_path: Path) -> None:
    """Calibrating on the measured frames flatters a peer, so the row notes it; other frames make another graph."""
    measured, own = (np.full((40, 8, 8, 3), grey, np.uint8) for grey in (1, 2))
    np.save(tmp_path / "frames.npy", measured)
    np.save(tmp_path / "own.npy", own)
    without = {"frames": str(tmp_path / "frames.npy"), "calibration": ""}
    with_own = without | {"calibration": str(tmp_path / "own.npy")}
    assert len(frames_of(without)) == 32
    np.testing.assert_array_equal(frames_of(with_own), own)
    assert calibration_note(without) == "calibrated on the measured frames"
    assert calibration_note(with_own) == "calibrated on the bundle's calibration frames"
    assert name_frames(without) != name_frames(with_own)
