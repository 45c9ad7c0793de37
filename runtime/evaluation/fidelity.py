"""Fidelity: how far an engine's answers are from the fp32 reference, and whether that is near enough to fly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Match, Matcher
from overflight.runtime.engines.record import Agreement, Fidelity, FidelityLimits, FidelityVerdict
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.engines import Engine, Precision

    Vectors = NDArray[np.float32]


def limits(precision: Precision) -> FidelityLimits:
    """Return what an engine of this precision must reach."""
    match precision:
        case "fp32":
            return FidelityLimits(cosine_mean=0.99999, cosine_p1=0.9999, top1=0.998, variance_kept=0.99)
        case "fp16":
            return FidelityLimits(cosine_mean=0.999, cosine_p1=0.998, top1=0.995, variance_kept=0.9)
        case "int8":
            return FidelityLimits(cosine_mean=0.995, cosine_p1=0.98, top1=0.99, variance_kept=0.5)


def embed_all(engine: Engine, frames: NDArray[np.uint8], batch: int = 8) -> Vectors:
    """Embed frames uint8 ``[N, S, S, 3]`` in batches; the answer float32 ``[N, D]`` is the caller's own."""
    return np.concatenate([part for _, part in embed_parts(engine, frames, batch)])


def embed_parts(engine: Engine, frames: NDArray[np.uint8], batch: int = 8) -> Iterator[tuple[int, Vectors]]:
    """Embed frames batch by batch, so that a caller can show progress: yields the start and ``[n, D]``."""
    for start in range(0, len(frames), batch):
        yield start, np.array(engine.embed(frames[start : start + batch]), np.float32)


def measure(
    reference: Vectors,
    answers: Vectors,
    banks: Sequence[LabelBank] = (),
    *,
    frames: str = "",
    truth: Sequence[str | None] | None = None,
) -> Fidelity:
    """Compare answers ``[N, D]`` with the reference's unit embeddings ``[N, D]``, row by row.

    ``truth`` names each frame's right label, where known. Answers that are not finite count as cosine -1.
    Raises UsageError when the shapes differ or nothing is compared.
    """
    if reference.shape != answers.shape or reference.ndim != 2 or not len(reference):
        raise UsageError(
            f"answers {list(answers.shape)} against reference {list(reference.shape)}: give the same frames"
        )
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(answers).all(axis=1))
    clean = np.where(finite[:, None], answers, 0.0).astype(np.float64)
    exact = reference.astype(np.float64)
    norms = np.maximum(np.linalg.norm(clean, axis=1) * np.linalg.norm(exact, axis=1), 1e-12)
    cosines = np.where(finite, (clean * exact).sum(axis=1) / norms, -1.0)
    spread = float(((exact - exact.mean(axis=0)) ** 2).sum())
    error = float(((clean - exact) ** 2).sum())
    return Fidelity(
        samples=len(reference),
        cosine_mean=float(cosines.mean()),
        cosine_p1=float(np.percentile(cosines, 1)),
        cosine_min=float(cosines.min()),
        variance_kept=1 - error / spread if spread > 1e-12 else float(error < 1e-9),
        agreement=tuple(_agree(bank, reference, clean.astype(np.float32), finite, truth) for bank in banks),
        frames=frames,
    )


def judge(fidelity: Fidelity, precision: Precision) -> FidelityVerdict:
    """Hold a fidelity against the gate of its precision; every shortfall becomes one reason.

    One frame that is answered otherwise never fails an engine by itself: fewer frames cannot resolve the share.
    """
    needed = limits(precision)
    top1 = min(needed.top1, 1 - 1 / fidelity.samples)
    reasons = []
    for name in ("cosine_mean", "cosine_p1", "variance_kept"):
        got, least = getattr(fidelity, name), getattr(needed, name)
        if not got >= least:
            reasons.append(f"{name} {got:.4f} is below {least}")
    reasons += [
        f"top-1 agreement with bank {one.bank} {one.top1:.2%} is below {top1:.1%}"
        for one in fidelity.agreement
        if not one.top1 >= top1 - 1e-9
    ]
    return FidelityVerdict(passed=not reasons, reasons=tuple(reasons), gate=needed, fidelity=fidelity)


def failed(reason: str, precision: Precision) -> FidelityVerdict:
    """Return the verdict of an engine that could not even be measured."""
    return FidelityVerdict(passed=False, reasons=(reason,), gate=limits(precision))


def _agree(
    bank: LabelBank,
    reference: Vectors,
    answers: Vectors,
    finite: NDArray[np.bool_],
    truth: Sequence[str | None] | None,
) -> Agreement:
    matcher, decider = Matcher(bank), Decider(bank)
    expected, got = ([matcher.match(embedding) for embedding in rows] for rows in (reference, answers))
    best, answered = (np.array([match.logits.argmax() for match in matches]) for matches in (expected, got))
    reports, answers_reports = _reported(decider, expected), _reported(decider, got) & finite[:, None]
    either = int((reports | answers_reports).sum())
    accuracy = reference_accuracy = None
    if truth is not None:
        right = _indices(bank, truth)
        known = right >= 0
        if known.any():
            accuracy = float(((answered == right) & finite)[known].mean())
            reference_accuracy = float((best == right)[known].mean())
    return Agreement(
        bank=bank.header.name,
        sha256=bank.sha256,
        top1=float(((best == answered) & finite).mean()),
        flips=float((reports ^ answers_reports).sum() / either) if either else 0.0,
        accuracy=accuracy,
        reference_accuracy=reference_accuracy,
    )


def _indices(bank: LabelBank, truth: Sequence[str | None]) -> NDArray[np.int64]:
    order = {_plain(label.text): index for index, label in enumerate(bank.header.labels)}
    return np.array([-1 if name is None else order.get(_plain(name), -1) for name in truth], np.int64)


def _plain(name: str) -> str:
    """Reduce a label or a folder's name to what both have: ``DenseResidential`` is ``dense residential``."""
    return "".join(filter(str.isalnum, name)).casefold()


def _reported(decider: Decider, matches: Sequence[Match]) -> NDArray[np.bool_]:
    """Which labels each frame is reported with in flight ``[N, K]``."""
    return np.stack([decider.present(match) for match in matches])
