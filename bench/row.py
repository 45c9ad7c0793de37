"""The row: one measurement with every raw sample, and everything that is needed to interpret it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from overflight.bench.processor_time import ENOUGH
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = 1
RESULTS = Path(__file__).parent / "results"

Unit = Literal["ns", "bytes"]
Setting = str | int | float | bool


class Host(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine and the moment; what a machine does not report is absent.

    ``kind`` is the device class whose budgets hold. ``load`` is the system's one-minute load average when the row was
    taken: above ``cores`` something else was running. ``caps`` is what the process was allowed (cgroup, affinity).
    """

    kind: str
    name: str
    processor: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    load: float
    board: str | None = None
    gpu: str | None = None
    power_mode: str | None = None
    clocks_mhz: tuple[int, ...] = ()
    temperatures_c: dict[str, float] = {}


class Floor(msgspec.Struct, frozen=True, omit_defaults=True):
    """What this machine could have done at best, as measured in the same turns as the samples.

    ``operations`` counts the products of the graph by precision, two per multiply-add; ``bytes`` what must be read and
    written at least once. ``per_s`` holds the measured peaks: operations by precision, and "bytes". ``floor_ns`` is the
    longer of computing and moving; ``share`` the floor's part of the median sample.
    """

    operations: dict[str, int]
    bytes: int
    per_s: dict[str, float]
    floor_ns: float
    share: float

    @property
    def sound(self) -> bool:
        """Whether the peaks were peaks: nothing real is faster than its floor, beyond a few per cent of noise."""
        return self.share <= 1.03

    def __str__(self) -> str:
        return f"{self.share:.0%}" if self.sound else f"{self.share:.0%} (peak measured too low)"


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subject in one run.

    Rows of one ``run`` were sampled in turns: sample i of each was taken in round i, so ratios are formed pair by pair.
    ``included`` says in words what a sample covers. A subject that could not run has no samples and a ``reason``.
    ``hashes`` names by SHA-256 what ran: checkpoint, bundle, engine, frames, bank.
    """

    schema: int
    run: str
    measure: str
    subject: str
    model: str
    unit: Unit
    samples: tuple[int, ...]
    taken_utc: str
    commit: str
    host: Host
    included: str
    settings: dict[str, Setting] = {}
    versions: dict[str, str] = {}
    hashes: dict[str, str] = {}
    figures: dict[str, float] = {}
    floor: Floor | None = None
    reason: str = ""

    @property
    def starved(self) -> str:
        """Say that the subject did not get the processor time that it could have used; "" where it did.

        Such a row describes what else ran on the machine: it is marked, and nothing is judged by it.
        """
        granted = self.figures.get("granted", 1.0)
        return f"starved: got {granted:.0%} of its processor time" if granted < ENOUGH else ""

    @property
    def title(self) -> str:
        """The subject with the settings that tell rows of one run apart."""
        distinguishing = {
            "batches": ("batch",),
            "match": ("labels",),
            "search": ("count",),
            "archive": ("count",),
            "tiles": ("side",),
        }
        shown = [f"{key} {self.settings[key]}" for key in distinguishing.get(self.measure, ()) if key in self.settings]
        return ", ".join([self.subject, *shown])


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to a record file, one JSON line each; existing rows are never changed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
    except OSError as error:
        raise OverflightError(f"{path}: {error.strerror}; name a file that can be written with --out") from error


def read(path: Path) -> list[Row]:
    """Read a record file, or every one of a folder, oldest row first. Raises UsageError for another kind of file."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    rows = [row for file in files for row in _rows(file)]
    if not rows:
        raise UsageError(f"{path}: contains no rows; make some with: overflight bench engine --out {path}")
    return sorted(rows, key=lambda row: row.taken_utc)


def _rows(path: Path) -> list[Row]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a record file (.jsonl) of overflight bench") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(decode_json(line, Row))
        except msgspec.DecodeError as error:
            raise UsageError(f"{path}:{number}: not a row of overflight bench ({error}); remove the line") from error
    return rows
