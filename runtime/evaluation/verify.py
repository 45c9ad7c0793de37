"""Verifying: does this bundle, with this engine, on this device, still answer as the reference did?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.engines import open_reference
from overflight.runtime.engines.record import Fidelity
from overflight.runtime.errors import BundleError, MissingError
from overflight.runtime.evaluation.fidelity import embed_all, judge, measure
from overflight.runtime.evaluation.holdout import HOLDOUT, bundled_holdout
from overflight.runtime.store import choose
from overflight.runtime.zip_input import read_arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Engine, Precision, Target
    from overflight.runtime.store import Chosen

GOLDEN = "golden.npz"
MOST_GOLDEN_BYTES = 256 << 20
_TOLERANCE = (
    1e-4  # largest absolute difference of the fp32 reference here from the vectors made at export: libraries differ
)


class Verification(msgspec.Struct, frozen=True):
    """What a verification found; ``reasons`` says what failed, or nothing.

    ``golden_max_abs`` is how far ONNX Runtime fp32 is here from the golden vectors. ``fidelity`` is the engine's, on
    the hold-out that calibration left, or on the golden frames where there is none; None when the engine is the
    reference itself.
    """

    bundle: str
    model: str
    files: int
    engine: str
    golden_frames: int
    golden_max_abs: float
    fidelity: Fidelity | None
    passed: bool
    reasons: tuple[str, ...]
    note: str = ""


def verify(
    bundle: Bundle, target: Target | None = None, precision: Precision | None = None, *, forced: bool = False
) -> Verification:
    """Check every file's hash, replay the golden vectors, and hold the engine that would fly to the reference.

    Raises BundleError for a torn bundle, EngineError for an engine that is refused, MissingError for one not built.
    """
    bundle.verify()
    frames, expected = _golden(bundle)
    reference = open_reference(bundle)
    try:
        largest = float(np.abs(embed_all(reference, frames) - expected).max())
        chosen = choose(bundle, target, precision, forced=forced)
        try:
            fidelity = _fidelity(bundle, chosen, reference, frames, expected)
        finally:
            chosen.engine.close()
    finally:
        reference.close()
    reasons: tuple[str, ...] = ()
    if not largest <= _TOLERANCE:
        reasons = (f"golden vectors differ by {largest:.1e}, at most {_TOLERANCE:.0e}",)
    if fidelity is not None:
        reasons += judge(fidelity, chosen.engine.info.precision).reasons
    title = "onnxruntime-cpu fp32" if chosen.record is None else chosen.record.title
    return Verification(
        bundle=bundle.sha256,
        model=bundle.manifest.name,
        files=len(bundle.manifest.files),
        engine=title,
        golden_frames=len(frames),
        golden_max_abs=largest,
        fidelity=fidelity,
        passed=not reasons,
        reasons=reasons,
        note=chosen.note,
    )


def _golden(bundle: Bundle) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    if GOLDEN not in bundle.manifest.files:
        raise MissingError(f"{bundle.directory}: holds no {GOLDEN} to replay; export the checkpoint again")
    try:
        golden = read_arrays(bundle.file(GOLDEN).read_bytes(), ("frames", "frame_embeddings"), MOST_GOLDEN_BYTES)
        return golden["frames"].astype(np.uint8), golden["frame_embeddings"].astype(np.float32)
    except (ValueError, OSError) as error:
        raise BundleError(f"{bundle.directory / GOLDEN}: not golden vectors ({error}); export again") from error


def _fidelity(
    bundle: Bundle,
    chosen: Chosen,
    reference: Engine,
    golden: NDArray[np.uint8],
    expected: NDArray[np.float32],
) -> Fidelity | None:
    if chosen.record is None:
        return None
    if HOLDOUT not in bundle.manifest.files:
        return measure(expected, embed_all(chosen.engine, golden), frames="golden")
    held = bundled_holdout(bundle)
    banks = [LabelBank.load(bundle.file(name)) for name in bundle.manifest.files if name.startswith("labels/")]
    answers = embed_all(chosen.engine, held.frames)
    return measure(embed_all(reference, held.frames), answers, banks, frames=held.sha256, truth=held.truth)
