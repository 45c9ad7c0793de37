"""A flight's gauges: what its threads count, and whether everything works, for health answers and metrics."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.flight.newest import NewestPicture
from overflight.runtime.flight.warnings import Warnings
from overflight.runtime.worker import Faults, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.flight.governor_watch import GovernorWatch
    from overflight.runtime.records import Observation

BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FRESH_S = 5.0


class Status(msgspec.Struct, frozen=True):
    """What ``GET /status`` answers: whether frames are observed, in which flight, with what, and whether motors run.

    ``trouble`` is the first thing that does not work now; ``armed`` is None where no autopilot is heard.
    ``warnings`` is what is wrong with telemetry, links, bank or source while the flight continues. ``governor`` names
    the step to which frames and tiles are reduced, "" for none. ``frame`` and ``label`` are the newest observation's,
    ``age_s`` the time since that frame was taken.
    """

    fresh: bool
    observed: int
    trouble: str | None
    armed: bool | None
    flight: str
    bundle: str
    bank: str
    pid: int = 0
    warnings: dict[str, str] = {}
    governor: str = ""
    frame: int | None = None
    label: str | None = None
    age_s: float | None = None


class Gauges:
    """What the flight thread counts and the health server reads; single assignments, so no lock is held in flight.

    ``trouble`` is the source's. ``checks`` are asked for what else does not work: the journal, and every supervised
    thread; each returns a reason or None. ``notes`` are asked for what is worth saying of a flight that works.
    """

    def __init__(self) -> None:
        self.ready = False
        self.observed = 0
        self.events = 0
        self.last_ns = 0
        self.label: str | None = None
        self.frame: int | None = None
        self.captured_ns: int | None = None
        self.newest = NewestPicture()
        self.dropped: Counter[str] = Counter()
        self.unrecorded: Counter[str] = Counter()
        self.trouble: str | None = None
        self.warnings = Warnings()
        self.without_pose: int | None = None  # None where no telemetry was asked for
        self.governor: GovernorWatch | None = None
        self.bank = ""
        self.flight = ""
        self.bundle = ""
        self.armed: Callable[[], bool | None] = lambda: None
        self.checks: list[Callable[[], str | None]] = []
        self.notes: list[Callable[[], str | None]] = []
        self._faults: list[Faults] = []
        self._ages = [0] * (len(BUCKETS_S) + 1)
        self._age_sum_s = 0.0
        self._engine_sum_s = 0.0

    def observe(self, observation: Observation) -> None:
        """Count one observation."""
        self.ready = True
        self.observed += 1
        self.last_ns = time.monotonic_ns()
        self.label, self.frame, self.captured_ns = observation.label, observation.frame, observation.captured_ns
        self.bank = observation.bank
        self.dropped.update(observation.dropped)
        age_s = observation.age_ns / 1e9
        self._ages[bisect_left(BUCKETS_S, age_s)] += 1
        self._age_sum_s += age_s
        self._engine_sum_s += observation.costs.engine_ns / 1e9

    def watch(self, *watched: Worker | Faults) -> None:
        """Show the faults of a worker, or of callbacks, and whether it fails now."""
        for one in watched:
            self._faults.append(one.faults if isinstance(one, Worker) else one)
            self.checks.append(lambda one=one: one.trouble)  # type: ignore[misc]

    def troubles(self) -> list[str]:
        """Return everything that does not work now, apart from the source."""
        return [reason for check in self.checks if (reason := check()) is not None]

    @property
    def recent(self) -> bool:
        """Whether there was an observation within the last seconds."""
        return self.ready and time.monotonic_ns() - self.last_ns <= FRESH_S * 1e9

    @property
    def fresh(self) -> bool:
        """Whether observations are recent and everything that keeps and sends them works."""
        return self.recent and not self.troubles()

    def explain_ready(self) -> tuple[bool, str]:
        """Return whether the flight is ready, and the text that says why."""
        return self._explain(self.ready, "ready", self.trouble or "no frame observed yet")

    def explain_fresh(self) -> tuple[bool, str]:
        """Return whether the flight is fresh, and the text that says why."""
        return self._explain(self.recent, "fresh", self.trouble or "no recent observation")

    def _explain(self, observed: bool, good: str, bad: str) -> tuple[bool, str]:
        troubles = ([] if observed else [bad]) + self.troubles()
        notes = [note for ask in self.notes if (note := ask()) is not None]
        notes += [
            f"{faults.name}: {count} x {kind}" for faults in self._faults for kind, count in faults.counts.items()
        ]
        return not troubles, "; ".join([*(troubles or [good]), *notes])

    def status(self) -> Status:
        """Return what ``GET /status`` answers."""
        trouble = next(iter(self.troubles()), self.trouble)
        names = self.flight, self.bundle, self.bank
        governed = self.governor.governor.step.name if self.governor is not None and self.governor.note else ""
        age_s = None if self.captured_ns is None else (time.monotonic_ns() - self.captured_ns) / 1e9
        return Status(
            self.fresh, self.observed, trouble, self.armed(), *names, os.getpid(), self.warnings.current, governed,
            self.frame, self.label, age_s,
        )  # fmt: skip

    def metrics(self) -> str:
        """Return the Prometheus text exposition, in base units."""
        lines = [
            *_metric("overflight_observations_total", "counter", "Frames observed.", {"": self.observed}),
            *_metric("overflight_events_total", "counter", "Steps of events published.", {"": self.events}),
            *_metric(
                "overflight_dropped_total",
                "counter",
                "Frames not observed, by reason.",
                {f'{{reason="{reason}"}}': count for reason, count in sorted(self.dropped.items())},
            ),
            *_metric(
                "overflight_unrecorded_total",
                "counter",
                "Rows that the disk did not take, by table.",
                {f'{{table="{table}"}}': count for table, count in sorted(self.unrecorded.items())},
            ),
            *_metric(
                "overflight_faults_total",
                "counter",
                "Unexpected exceptions that were survived, by part and class.",
                {
                    f'{{part="{_escape(faults.name)}",kind="{kind}"}}': count
                    for faults in self._faults
                    for kind, count in sorted(faults.counts.items())
                },
            ),
            *_metric(
                "overflight_warnings_total",
                "counter",
                "Warnings, by part.",
                {f'{{part="{_escape(part)}"}}': count for part, count in sorted(self.warnings.counts.items())},
            ),
            *_metric(
                "overflight_warning",
                "gauge",
                "1 for each part that has a warning now.",
                {f'{{part="{_escape(part)}"}}': 1 for part in sorted(self.warnings.current)},
            ),
            *(
                []
                if self.without_pose is None
                else _metric(
                    "overflight_without_pose_total", "counter", "Frames without a pose.", {"": self.without_pose}
                )
            ),
            *_metric(
                "overflight_engine_seconds_total", "counter", "Time in the engine.", {"": round(self._engine_sum_s, 6)}
            ),
            *([] if self.governor is None else _governor_metrics(self.governor)),
            *_metric("overflight_fresh", "gauge", "1 while observations are recent.", {"": int(self.fresh)}),
            "# HELP overflight_age_seconds Time from capture to decision.",
            "# TYPE overflight_age_seconds histogram",
        ]
        total = 0
        for bound, count in zip((*BUCKETS_S, "+Inf"), self._ages, strict=True):
            total += count
            lines.append(f'overflight_age_seconds_bucket{{le="{bound}"}} {total}')
        lines += [f"overflight_age_seconds_sum {self._age_sum_s:.6f}", f"overflight_age_seconds_count {total}"]
        return "\n".join(lines) + "\n"


def _governor_metrics(governor: GovernorWatch) -> list[str]:
    return [
        *_metric(
            "overflight_governor_step", "gauge", "Step of the governor, 0 for full.", {"": governor.governor.number}
        ),
        *_metric("overflight_governor_changes_total", "counter", "Changes of that step.", {"": governor.changes}),
    ]


def _metric(name: str, kind: str, text: str, values: dict[str, float]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{at} {v}" for at, v in values.items())]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
