"""A flight in figures: what was seen, when, for how long, at what cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.runtime.errors import UsageError
from overflight.runtime.flight.directory import JOURNAL, OBSERVATIONS, read_record
from overflight.runtime.flight.journal_reader import read_observations
from overflight.runtime.json_input import decode_json
from overflight.runtime.records import Observation
from overflight.station.event_summary import EventSummary, summarise_events
from overflight.station.presence import present_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.pose.footprint import Place
    from overflight.runtime.pose.record import Pose
    from overflight.runtime.records import FlightRecord

# What a flight's axis counts: seconds into a recording, seconds since the first frame of a camera, or pictures.
Axis = Literal["recording", "clock", "pictures"]


@dataclass(frozen=True)
class LabelSummary:
    """What one label did in a flight; ``label`` None is "unknown". Times are on the flight's axis.

    ``weight`` is the seconds (or pictures) it was the answer, ``share`` the same as a part of the flight,
    ``longest`` its longest unbroken run. ``first`` and ``last`` are rows of the flight. A label that was present next
    to a better one has no weight of its own; ``shown`` is for how long it was present, as the best or not, and
    ``present`` how long its events lasted together.
    """

    label: str | None
    count: int
    weight: float
    share: float
    longest: float
    first: int
    last: int
    best: float
    events: int = 0
    present: float = 0.0
    shown: float = 0.0


@dataclass(frozen=True)
class Summary:
    """A flight's observations as columns, each of length N, and what follows from them.

    ``times`` are seconds since the start, or picture numbers, as ``axis`` says; ``weights`` how long each observation
    stood. ``scores`` is the share inside an exclusive group, or else the sigmoid score, of the label answered, 0 for
    "unknown". ``dropped`` counts the frames lost, ``skipped`` those that the user asked to skip. ``banks``
    names each row's label bank by its hash. ``unreadable`` counts lines that were torn or foreign.
    """

    flight: Path

    record: FlightRecord
    axis: Axis
    frames: NDArray[np.int64]
    times: NDArray[np.float64]
    weights: NDArray[np.float64]
    answers: list[str | None]
    names: list[str | None]
    scores: NDArray[np.float64]
    age_ms: NDArray[np.float64]
    costs_ms: dict[str, NDArray[np.float64]]
    lost_before: NDArray[np.int64]
    dropped: dict[str, int]
    skipped: dict[str, int]
    poses: list[Pose | None]
    places: list[Place | None]
    banks: list[str]
    events: list[EventSummary]
    taken_utc_ns: int | None
    unreadable: int
    frames_per_s: float | None
    labels: list[LabelSummary]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def bank_rows(self) -> list[int]:
        """The rows from which another label bank was used than before."""
        return [row for row in range(1, len(self)) if self.banks[row] != self.banks[row - 1]]

    @property
    def median_age_ms(self) -> float:
        """The median time from a frame's capture to its decision; NaN where no frame was observed."""
        return float(np.median(self.age_ms)) if len(self) else float("nan")


def summarise(flight: Path) -> Summary:
    """Read a flight directory. Raises UsageError where there is none."""
    record = read_record(flight)
    observations, unreadable = read(flight)
    axis, times = _axis(observations)
    weights = _weights(axis, times)
    answers = [seen.label for seen in observations]
    scores = np.array([_score(seen) for seen in observations])
    captured_s = np.array([seen.captured_ns for seen in observations]) / 1e9
    busy_s = float(captured_s[-1] - captured_s[0]) if len(captured_s) > 1 else 0.0
    frames = np.array([seen.frame for seen in observations], np.int64)
    events = summarise_events(flight, frames, times, seconds=axis != "pictures")
    return Summary(
        flight=flight,
        record=record,
        axis=axis,
        frames=frames,
        times=times,
        weights=weights,
        answers=answers,
        names=[seen.name for seen in observations],
        scores=scores,
        age_ms=np.array([seen.age_ns for seen in observations]) / 1e6,
        costs_ms={
            "resize": np.array([seen.costs.resize_ns for seen in observations]) / 1e6,
            "engine": np.array([seen.costs.engine_ns for seen in observations]) / 1e6,
            "match": np.array([seen.costs.match_ns for seen in observations]) / 1e6,
        },
        lost_before=np.array([sum(seen.dropped.values()) for seen in observations], np.int64),
        dropped=record.dropped or _total(seen.dropped for seen in observations),
        skipped=record.skipped or _total(seen.skipped for seen in observations),
        poses=[seen.pose for seen in observations],
        places=[seen.place for seen in observations],
        banks=[seen.bank for seen in observations],
        events=events,
        taken_utc_ns=next((at for seen in observations if (at := seen.utc_ns) is not None), None),
        unreadable=unreadable,
        frames_per_s=(len(captured_s) - 1) / busy_s if busy_s > 0 else None,
        labels=_with_presence(
            _with_events(_labels(answers, scores, weights), events), present_rows(flight, observations), weights
        ),
    )


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)


def _with_events(labels: list[LabelSummary], events: list[EventSummary]) -> list[LabelSummary]:
    """Add what the events say: a label can be present for a whole flight without ever being the best."""
    own: dict[str, list[EventSummary]] = {}
    for event in events:
        own.setdefault(event.label, []).append(event)
    known = {label.label for label in labels}
    present = [
        LabelSummary(label, 0, 0.0, 0.0, 0.0, found[0].first, found[-1].last, max(event.score for event in found))
        for label, found in own.items()
        if label not in known
    ]
    return [
        replace(label, events=len(found), present=sum(event.lasted for event in found))
        for label in (*labels, *present)
        for found in [own.get(label.label or "", [])]
    ]


def _with_presence(
    labels: list[LabelSummary], present: dict[str, list[int]], weights: NDArray[np.float64]
) -> list[LabelSummary]:
    """Add for how long each label was present, and those that were present without an event and never the best."""
    known = {label.label for label in labels}
    others = [
        LabelSummary(name, 0, 0.0, 0.0, 0.0, rows[0], rows[-1], 0.0)
        for name, rows in present.items()
        if name not in known
    ]
    return [
        replace(
            label, shown=float(weights[rows].sum()), first=min(label.first, rows[0]), last=max(label.last, rows[-1])
        )
        if (rows := present.get(label.label or ""))
        else replace(label, shown=label.weight)
        for label in (*labels, *others)
    ]


def read(flight: Path) -> tuple[list[Observation], int]:
    """Read a flight's observations in order of frames, and the number of lines that could not be read.

    ``observations.jsonl`` is taken first; where a power cut came before its export, the journal has them.
    """
    path = flight / OBSERVATIONS
    if not path.exists():
        return (list(read_observations(flight / JOURNAL)) if (flight / JOURNAL).exists() else []), 0
    try:
        with path.open("rb") as lines:
            read_lines = [_decode(line) for line in lines]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected the observations that overflight run left") from error
    observations = [seen for seen in read_lines if seen is not None]
    return observations, len(read_lines) - len(observations)


def _decode(line: bytes) -> Observation | None:
    """Read one line; None for a torn last one or a foreign one, which is counted and said in the report."""
    try:
        return decode_json(line, Observation)
    except msgspec.DecodeError:
        return None


def _axis(observations: Sequence[Observation]) -> tuple[Axis, NDArray[np.float64]]:
    """Take the position in the recording, the camera's clock, or the picture's number: the first that there is."""
    media = [seen.media_ns for seen in observations]
    if media and None not in media:
        times = np.array(media, np.float64) / 1e9
        if len(times) == 1 or (np.diff(times) > 0).all():
            return "recording", times
    if observations and all(seen.captured_utc_ns is not None and seen.name is None for seen in observations):
        captured = np.array([seen.captured_ns for seen in observations], np.float64) / 1e9
        return "clock", captured - captured[0]
    return "pictures", np.array([seen.frame for seen in observations], np.float64)


def _weights(axis: Axis, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How long each observation stood: until the next, but not through a gap, where nothing was seen."""
    if axis == "pictures" or len(times) < 2:
        return np.ones(len(times))
    steps = np.diff(times)
    usual = float(np.median(steps))
    weights: NDArray[np.float64] = np.minimum(np.append(steps, usual), 5 * usual)
    return weights


def _score(seen: Observation) -> float:
    """How sure the answer is: its share inside an exclusive group, or else its sigmoid score; 0 for "unknown"."""
    for score in seen.scores:
        if score.label == seen.label:
            return score.score if score.share is None else score.share
    return 0.0


def _labels(
    answers: Sequence[str | None], scores: NDArray[np.float64], weights: NDArray[np.float64]
) -> list[LabelSummary]:
    """Sum up each answer, the one that stood longest first."""
    rows: dict[str | None, list[int]] = {}
    longest: dict[str | None, float] = {}
    run = 0.0
    for row, answer in enumerate(answers):
        rows.setdefault(answer, []).append(row)
        run = weights[row] + (run if row and answers[row - 1] == answer else 0.0)
        longest[answer] = max(run, longest.get(answer, 0.0))
    total = float(weights.sum()) or 1.0
    summaries = [
        LabelSummary(
            label=answer,
            count=len(at),
            weight=float(weights[at].sum()),
            share=float(weights[at].sum()) / total,
            longest=float(longest[answer]),
            first=at[0],
            last=at[-1],
            best=float(scores[at].max()),
        )
        for answer, at in rows.items()
    ]
    return sorted(summaries, key=lambda summary: -summary.weight)
