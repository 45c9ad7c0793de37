"""Thresholds: how sure a label must be, fitted on flights or on labelled frames instead of guessed.

From unlabelled flights that show none of the labels: the threshold is set where the rate of false alarms is, with 95 %
confidence, at most the requested one. That takes three hours of flight for a rate of one per hour, six for half of it,
and less is refused. From a few labelled frames: where the label's own frames are separated from all others best.
"""

from __future__ import annotations

import csv
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.bank import LabelBank
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.errors import UsageError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ALARM_GAP_S = 2.0  # looks nearer than this are one alarm, as the cool-down of a flight has it
GAP_S = 10.0  # a longer silence is no time flown
_CONFIDENCE = 0.95
_ROUNDING = 1e-3  # of a cosine: journals keep embeddings in 16 bit


class Fitted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found for one label.

    ``threshold`` None: nothing could be found, the bank's stays. From flights: the ``alarms`` at this threshold over
    ``hours``, and the interval that contains the true rate with 90 % confidence, so that it is at most
    ``alarms_per_hour_most`` with 95 %: if the flights showed none of the label, alarms are independent, and later
    flights are like these. From labelled frames: ``precision`` and ``recall`` over ``positives`` of them.
    """

    label: str
    threshold: float | None
    before: float | None = None
    alarms: int | None = None
    hours: float | None = None
    alarms_per_hour_least: float | None = None
    alarms_per_hour_most: float | None = None
    positives: int | None = None
    precision: float | None = None
    recall: float | None = None

    def line(self) -> str:
        """Return what was found in one line."""
        if self.threshold is None:
            return f"{self.label}: not seen; its threshold stays"
        text = f"{self.label}: {self.threshold:.4g}"
        if self.alarms is not None and self.hours:
            return (
                f"{text}, {self.alarms} alarms in {self.hours:.2g} h: {self.alarms / self.hours:.2g} per hour, "
                f"90 % interval {self.alarms_per_hour_least:.2g} to {self.alarms_per_hour_most:.2g}"
            )
        return f"{text}, precision {self.precision:.2f}, recall {self.recall:.2f} over {self.positives} examples"


@dataclass(frozen=True)
class Seen:
    """Unit embeddings ``[N, D]`` with the seconds ``[N]`` at which they were taken, on a clock without long gaps."""

    seconds: NDArray[np.float64]
    embeddings: NDArray[np.float32]

    @property
    def hours(self) -> float:
        """How long was flown."""
        return float(self.seconds[-1] - self.seconds[0]) / 3600 if len(self.seconds) else 0.0


@dataclass(frozen=True)
class Example:
    """A unit embedding and the labels that somebody says it shows; none is "nothing of the bank"."""

    embedding: NDArray[np.float32]
    labels: frozenset[str]


def read_flights(flights: Sequence[Path], bank: LabelBank) -> Seen:
    """Join the embeddings of flights one after the other, by their own clocks.

    Raises UsageError for flights of another tower, and for frames without a time.
    """
    from overflight.runtime.flight.directory import JOURNAL
    from overflight.runtime.flight.journal_reader import JournalReader

    seconds: list[float] = []
    vectors: list[NDArray[np.float16]] = []
    for flight in flights:
        _check_tower(flight, bank)
        previous: float | None = None
        for observation, vector, _ in JournalReader(flight / JOURNAL).frames():
            if vector is None:
                continue
            if observation.moment_ns is None:
                raise UsageError(
                    f"{flight}: frame {observation.frame} has no time, so a rate per hour cannot be measured; "
                    "use videos, or stills with an Exif time, or --examples"
                )
            now = observation.moment_ns / 1e9
            step = GAP_S if previous is None else min(max(0.0, now - previous), GAP_S)
            seconds.append((seconds[-1] if seconds else 0.0) + step)
            vectors.append(vector)
            previous = now
    if not vectors:
        raise UsageError(f"{', '.join(map(str, flights))}: no embedding in these flights; fly with a journal budget")
    return Seen(np.array(seconds), np.stack(vectors).astype(np.float32))


def fit_background(bank: LabelBank, seen: Seen, rate_per_hour: float) -> tuple[LabelBank, list[Fitted]]:
    """Set each label's threshold where its false alarms are at most ``rate_per_hour``, with 95 % confidence.

    The threshold lies above the alarm that, as an order statistic, bounds the rate (exact Poisson limit). Raises
    UsageError where so few hours cannot show so low a rate, whatever the threshold.
    """
    if not rate_per_hour > 0:
        raise UsageError(f"--rate {rate_per_hour:g}: expected more than 0 false alarms per hour")
    none = poisson_most(0)
    if rate_per_hour * seen.hours < none:
        lowest = f"--rate {none / seen.hours:.2g} or more" if seen.hours else "flights with a clock"
        raise UsageError(
            f"--rate {rate_per_hour:g}: takes {none / rate_per_hour:.2g} h of flight to show with 95 % confidence, got "
            f"{seen.hours:.2g} h; add flights that show none of the labels, or ask for {lowest}"
        )
    allowed = 0
    while poisson_most(allowed + 1) <= rate_per_hour * seen.hours:
        allowed += 1
    scores = judge(bank, seen.embeddings)
    fitted = []
    for label, column, scale in zip(bank.header.labels, scores.T, bank.scales, strict=True):
        if label.background:
            continue
        peaks = _peaks(seen.seconds, column)
        alarms = min(allowed, len(peaks))
        fitted.append(
            Fitted(
                label.text,
                _between(peaks, allowed, float(scale) * _ROUNDING),
                label.threshold,
                alarms,
                seen.hours,
                poisson_least(alarms) / seen.hours,
                poisson_most(alarms) / seen.hours,
            )
        )
    return _with_thresholds(bank, fitted), fitted


def fit_examples(bank: LabelBank, examples: Sequence[Example]) -> tuple[LabelBank, list[Fitted]]:
    """Set the threshold of each label that has examples where F1 is best; a label without any keeps its own."""
    known = {label.text for label in bank.header.labels if not label.background}
    for example in examples:
        if unknown := sorted(example.labels - known):
            raise UsageError(f"label {unknown[0]!r} is not in the bank; expected one of: {', '.join(sorted(known))}")
    scores = judge(bank, np.stack([example.embedding for example in examples]))
    fitted = []
    for label, column in zip(bank.header.labels, scores.T, strict=True):
        if label.background:
            continue
        truth = np.array([label.text in example.labels for example in examples])
        fitted.append(_best_f1(label.text, label.threshold, column, truth))
    return _with_thresholds(bank, fitted), fitted


def read_examples(path: Path, embed: Callable[[str], NDArray[np.float32]]) -> list[Example]:
    """Read labelled frames: CSV or JSONL with ``image`` (or ``frame``) and ``label``, a row for each label.

    A row without a label says that the frame shows nothing of the bank. ``embed`` turns the name into its unit
    embedding. Raises UsageError with the line.
    """
    labels: dict[str, set[str]] = {}
    for number, row in _rows(path):
        image, frame = row.get("image"), row.get("frame")
        name = str(path.parent / str(image)) if image else "" if frame is None else str(frame)
        if not name or "label" not in row:
            raise UsageError(f"{path}:{number}: expected the columns image (or frame) and label, got {list(row)}")
        labels.setdefault(name, set()).update([str(row["label"])] if row["label"] else [])
    if not labels:
        raise UsageError(f"{path}: holds no labelled frame; expected rows of image (or frame) and label")
    return [Example(embed(name), frozenset(names)) for name, names in labels.items()]


@contextmanager
def example_reader(
    bank: LabelBank, flights: Sequence[Path], bundle: Path | None
) -> Iterator[Callable[[str], NDArray[np.float32]]]:
    """Yield what turns a row's name into a unit embedding: a frame of the one flight given, or else a picture file."""
    from overflight.runtime.flight.directory import JOURNAL
    from overflight.runtime.flight.journal_reader import JournalReader
    from overflight.runtime.overflight import Overflight
    from overflight.runtime.sources.image import read_image

    if len(flights) > 1:
        raise UsageError("--examples: with several flights a frame number names several frames; give one --flight")
    if flights:
        _check_tower(flights[0], bank)
        known = {
            str(seen.frame): vector.astype(np.float32)
            for seen, vector, _ in JournalReader(flights[0] / JOURNAL).frames()
            if vector is not None
        }

        def look_up(name: str) -> NDArray[np.float32]:
            if name not in known:
                raise UsageError(f"{flights[0]}: frame {name} has no embedding; expected one that was observed")
            return known[name]

        yield look_up
        return
    with Overflight.load(bundle, bank) as overflight:
        yield lambda name: overflight.embed([read_image(name)])[0]


def judge(bank: LabelBank, embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``[N, K]`` what each threshold is held against: share or score, 0 where the label could not be reported.

    As in flight: what a background label beats, or another of its exclusive group, is not reported at any threshold.
    """
    open_bank = _with_thresholds(bank, [Fitted(label.text, 0.0) for label in bank.header.labels], common=0.0)
    matcher, decider = Matcher(bank), Decider(open_bank)
    names = [label.text for label in bank.header.labels]
    judged = np.zeros((len(embeddings), len(names)))
    for row, embedding in zip(judged, embeddings, strict=True):
        match = matcher.match(embedding)
        present = decider.decide(match).present
        values = np.where(np.isnan(match.shares), match.scores, match.shares)
        row[:] = [value if name in present else 0.0 for name, value in zip(names, values, strict=True)]
    return judged


def _check_tower(flight: Path, bank: LabelBank) -> None:
    from overflight.runtime.flight.directory import BANKS

    for kept in sorted((flight / BANKS).glob("*.safetensors")):
        flown = LabelBank.load(kept).header
        if flown.tower != bank.header.tower:
            raise UsageError(
                f"{flight}: flown with {flown.model} (tower {flown.tower[:12]}), but the bank is for "
                f"{bank.header.model} (tower {bank.header.tower[:12]}); fly again, or take the bank's own flights"
            )


def _peaks(seconds: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the alarms' heights, highest first: each look's score unless a higher one lies within the alarm's gap."""
    taken = np.zeros(len(scores), bool)
    peaks = []
    for index in np.argsort(-scores, kind="stable"):
        if taken[index] or scores[index] <= 0:
            continue
        peaks.append(scores[index])
        first = np.searchsorted(seconds, seconds[index] - ALARM_GAP_S, "left")
        last = np.searchsorted(seconds, seconds[index] + ALARM_GAP_S, "right")
        taken[first:last] = True
    return np.array(peaks)


def _between(peaks: NDArray[np.float64], allowed: int, rounding: float) -> float | None:
    """Return a threshold that ``allowed`` peaks reach and the next does not; None where nothing ever was seen.

    ``rounding`` is by how much a logit in flight may lie above the one had again from a journal.
    """
    if not len(peaks):
        return None
    logits = np.log(np.clip(peaks, 1e-12, 1 - 1e-12)) - np.log1p(-np.clip(peaks, 1e-12, 1 - 1e-12))
    if allowed == 0:  # above everything seen, by a tenth of what lies between the highest and the usual
        logit = logits[0] + 0.1 * (logits[0] - np.median(logits)) + rounding
    elif allowed >= len(peaks):
        logit = logits[-1]
    else:
        logit = (logits[allowed - 1] + logits[allowed]) / 2
    return float(1 / (1 + np.exp(-logit)))


def poisson_most(count: int) -> float:
    """Return the mean at which so few events come in 5 % of all cases: the exact upper limit with 95 % confidence."""
    return _poisson_mean(count, 1 - _CONFIDENCE)


def poisson_least(count: int) -> float:
    """Return the mean at which so many events come in 5 % of all cases: the exact lower limit with 95 % confidence."""
    return _poisson_mean(count - 1, _CONFIDENCE) if count else 0.0


def _poisson_mean(count: int, chance: float) -> float:
    """Return the mean at which at most ``count`` events have this chance, by bisection."""
    low, high = 0.0, count + 10 * math.sqrt(count + 1) + 10
    for _ in range(60):
        mean = (low + high) / 2
        total = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))
        low, high = (mean, high) if total > chance else (low, mean)
    return high


def _best_f1(name: str, before: float | None, scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> Fitted:
    positives = int(truth.sum())
    if not positives:
        return Fitted(name, None, before, positives=0)
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(truth[order])
    counts = np.arange(1, len(scores) + 1)
    f1 = 2 * hits / (counts + positives)
    f1[:-1][sorted_scores[:-1] == sorted_scores[1:]] = -1  # no threshold parts equal scores
    f1[sorted_scores <= 0] = -1
    best = int(np.argmax(f1))
    if f1[best] <= 0:
        return Fitted(name, None, before, positives=positives, precision=0.0, recall=0.0)
    following = sorted_scores[best + 1] if best + 1 < len(scores) else 0.0
    return Fitted(
        name,
        float((sorted_scores[best] + following) / 2),
        before,
        positives=positives,
        precision=float(hits[best] / counts[best]),
        recall=float(hits[best] / positives),
    )


def _with_thresholds(bank: LabelBank, fitted: Sequence[Fitted], common: float | None = None) -> LabelBank:
    found = {item.label: item.threshold for item in fitted if item.threshold is not None}
    labels = tuple(
        msgspec.structs.replace(label, threshold=found.get(label.text, label.threshold))
        if not label.background
        else label
        for label in bank.header.labels
    )
    threshold = bank.header.threshold if common is None else common
    return LabelBank.make(msgspec.structs.replace(bank.header, labels=labels, threshold=threshold), bank.vectors)


def _rows(path: Path) -> list[tuple[int, dict[str, object]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: {error}; expected CSV or JSONL with the columns image (or frame) and label"
        ) from error
    if path.suffix.lower() == ".csv":
        return [(number, dict(row)) for number, row in enumerate(csv.DictReader(text.splitlines()), 2)]
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append((number, decode_json(line, dict[str, object])))
            except msgspec.DecodeError as error:
                raise UsageError(f"{path}:{number}: not a JSON object ({error}); expected image and label") from error
    return rows
