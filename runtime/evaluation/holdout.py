"""Held-out frames: what an engine is judged and timed on, and never calibrated with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.errors import BundleError, MissingError, UsageError
from overflight.runtime.evaluation.duplicates import SAME, difference_hash, distance, emptiness
from overflight.runtime.evaluation.frame_sampler import FrameSampler
from overflight.runtime.json_input import decode_json
from overflight.runtime.zip_input import read_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

FRAMES = "calibration/frames.json"
HOLDOUT = "calibration/holdout.npz"
MOST_HOLDOUT_BYTES = 2 << 30
_FEWEST = 16


class PickedFrame(msgspec.Struct, frozen=True, omit_defaults=True):
    """One frame that calibration chose: where it came from, what it is, and what it was used for.

    ``sha256`` is of the resized pixels; ``likeness`` is the difference hash, 16 hex digits; ``brightness`` is the mean
    grey level. ``part`` is "ranges", "tuning" or "holdout"; ``folder`` names the folder a still lay in;
    ``height_m`` is above take-off or ground, where it was known.
    """

    source: str
    number: int
    sha256: str
    likeness: str
    brightness: float
    part: str
    stratum: str
    name: str | None = None
    media_ns: int | None = None
    folder: str | None = None
    height_m: float | None = None


class PickedFrames(msgspec.Struct, frozen=True):
    """The manifest of a calibration's frames; ``refused`` counts what was passed over, by reason."""

    schema: int
    frames: tuple[PickedFrame, ...]
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Frames uint8 ``[N, S, S, 3]``, resized as in flight; ``truth`` names the folder each still lay in, if any."""

    frames: NDArray[np.uint8]
    truth: tuple[str | None, ...]
    sha256: str
    name: str

    @classmethod
    def of(cls, frames: NDArray[np.uint8], truth: Sequence[str | None], name: str) -> HeldOut:
        """Make a set, hashed."""
        digest = hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
        return cls(frames, tuple(truth), digest, name)


def bundled_holdout(bundle: Bundle) -> HeldOut:
    """Return the hold-out that calibration left in a bundle. Raises MissingError where there is none."""
    if HOLDOUT not in bundle.manifest.files:
        raise MissingError(
            f"{bundle.directory}: was never calibrated, so there are no frames to judge engines on; "
            "run: overflight calibrate BUNDLE SOURCE, or name frames with --frames"
        )
    try:
        frames = read_arrays(bundle.file(HOLDOUT).read_bytes(), ("frames",), MOST_HOLDOUT_BYTES)["frames"]
        if frames.dtype != np.uint8:
            raise ValueError(f"frames of {frames.dtype}, expected uint8")
    except (ValueError, OSError) as error:
        raise BundleError(f"{bundle.directory / HOLDOUT}: not a hold-out ({error}); calibrate again") from error
    truth = [one.folder for one in read_picked(bundle).frames if one.part == "holdout"]
    return HeldOut.of(frames, truth, "the bundle's hold-out")


def read_picked(bundle: Bundle) -> PickedFrames:
    """Read the manifest of the frames that a bundle was calibrated with. Raises BundleError for a torn one."""
    try:
        return decode_json(bundle.file(FRAMES).read_bytes(), type=PickedFrames)
    except msgspec.DecodeError as error:
        raise BundleError(f"{bundle.directory / FRAMES}: not a list of frames ({error}); calibrate again") from error


def gather_heldout(bundle: Bundle, sources: Sequence[str], limit: int) -> HeldOut:
    """Read frames to judge engines on from sources. Raises UsageError for too few, or for frames that show nothing."""
    gatherer = FrameSampler(sources, bundle.manifest.resize, limit)
    kept = [one for one in gatherer.frames() if emptiness(one.pixels) is None]
    if len(kept) < _FEWEST:
        raise UsageError(f"{', '.join(sources)}: {len(kept)} frames show something, at least {_FEWEST} are needed")
    return HeldOut.of(np.stack([one.pixels for one in kept]), [one.folder for one in kept], ", ".join(sources))


def overlap(bundle: Bundle, held: HeldOut) -> int:
    """Count held-out frames that look like one that the bundle was calibrated with."""
    if FRAMES not in bundle.manifest.files:
        return 0
    used = [int(one.likeness, 16) for one in read_picked(bundle).frames if one.part != "holdout"]
    known = np.array(used, np.uint64)
    return sum(bool((distance(difference_hash(frame), known) <= SAME).any()) for frame in held.frames) if used else 0
