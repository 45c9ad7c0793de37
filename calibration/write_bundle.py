"""Writing a calibration into its bundle, which stays valid at every moment."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.calibration.recipe import RECIPE, SMOOTHING, save_recipe
from overflight.runtime.bundle import MANIFEST, Bundle, Calibrated, Judged, seal
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import OverflightError
from overflight.runtime.evaluation.holdout import FRAMES, HOLDOUT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.calibration.calibrate import Calibration
    from overflight.calibration.recipe import Recipe
    from overflight.runtime.bundle import Quantised
    from overflight.runtime.engines.record import FidelityVerdict
    from overflight.runtime.evaluation.holdout import HeldOut, PickedFrames

FOLDER = "calibration"
FIDELITY = f"{FOLDER}/fidelity.json"
GRAPHS: dict[Quantised, str] = {"fp16": "image.fp16.onnx", "int8": "image.int8.onnx"}
ADDED = frozenset({*GRAPHS.values(), FRAMES, HOLDOUT, FIDELITY, f"{FOLDER}/{RECIPE}", f"{FOLDER}/{SMOOTHING}"})


def enrich(
    bundle: Bundle,
    graphs: dict[Quantised, bytes],
    recipe: Recipe,
    smoothing: dict[str, NDArray[np.float32]],
    *,
    verdicts: dict[Quantised, FidelityVerdict] | None = None,
    picked: PickedFrames | None = None,
    holdout: HeldOut | None = None,
) -> Bundle:
    """Write graphs, recipe and hold-out into a bundle and seal it again; files of an earlier calibration are removed.

    First a manifest without any of it, then the files, then the new manifest: a reader or a power cut in between finds
    a bundle that was not calibrated, never a torn one. Raises OverflightError where the bundle cannot be written.
    """
    directory = bundle.directory
    try:
        _strip(bundle)
        save_recipe(directory / FOLDER, recipe, smoothing)
        for precision, encoded in graphs.items():
            write_atomically(directory / GRAPHS[precision], encoded)
        if picked is not None:
            _write(directory / FRAMES, picked)
        if holdout is not None:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, frames=holdout.frames)
            write_atomically(directory / HOLDOUT, buffer.getvalue())
        if verdicts is not None:
            _write(directory / FIDELITY, verdicts)
        calibrated = Calibrated(
            frames=0 if picked is None else sum(one.part == "ranges" for one in picked.frames),
            holdout=0 if holdout is None else len(holdout.frames),
            precisions={precision: _judged((verdicts or {}).get(precision)) for precision in graphs},
        )
        return seal(directory, msgspec.structs.replace(bundle.manifest, calibrated=calibrated))
    except OSError as error:
        raise OverflightError(
            f"{directory}: cannot be written ({error.strerror}); copy the bundle to a disk that can, and calibrate that"
        ) from error


def enrich_with(bundle: Bundle, found: Calibration) -> Bundle:
    """Enrich a bundle with everything that a calibration found."""
    return enrich(
        bundle,
        found.graphs,
        found.recipe,
        found.smoothing,
        verdicts=found.verdicts,
        picked=found.picked,
        holdout=found.holdout,
    )


def _strip(bundle: Bundle) -> None:
    """Take what an earlier calibration added out of the manifest, then off the disk, with what a killed one left."""
    manifest = bundle.manifest
    files = {name: sha256 for name, sha256 in manifest.files.items() if name not in ADDED}
    bare = msgspec.structs.replace(manifest, files=files, calibrated=None)
    if bare != manifest:
        write_atomically(bundle.directory / MANIFEST, msgspec.json.format(msgspec.json.encode(bare), indent=1))
    for name in ADDED:
        (bundle.directory / name).unlink(missing_ok=True)
    for left in bundle.directory.rglob(".*.partial"):
        left.unlink()


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(value), indent=1))


def _judged(verdict: FidelityVerdict | None) -> Judged | None:
    if verdict is None or verdict.fidelity is None:
        return None
    return Judged(verdict.passed, round(verdict.fidelity.cosine_mean, 6), round(verdict.fidelity.cosine_p1, 6))
