"""The frames that a bundle was calibrated with, read again, so that other quantisers calibrate on the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.calibration.vary import vary
from overflight.runtime.errors import OverflightError
from overflight.runtime.evaluation.duplicates import hash_pixels
from overflight.runtime.evaluation.frame_sampler import FrameSampler
from overflight.runtime.evaluation.holdout import FRAMES, read_picked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

_ALL = 10**9


def calibration_frames(bundle: Bundle) -> NDArray[np.uint8] | None:
    """Return uint8 ``[N, S, S, 3]``: the frames that our ranges were read from, and their varied copies.

    None for a bundle that was never calibrated, and where some of the frames are gone or have changed.
    """
    if FRAMES not in bundle.manifest.files:
        return None
    picked = [one for one in read_picked(bundle).frames if one.part == "ranges"]
    wanted = {one.sha256 for one in picked}
    found: dict[str, NDArray[np.uint8]] = {}
    try:
        for frame in FrameSampler(sorted({one.source for one in picked}), bundle.manifest.resize, _ALL).frames():
            key = hash_pixels(frame.pixels)
            if key in wanted:
                found.setdefault(key, frame.pixels)
    except OverflightError:
        return None
    if not picked or len(found) < len(wanted):
        return None
    frames = np.stack([found[one.sha256] for one in picked])
    return np.concatenate([frames, vary(frames)])
