"""Examples from folders, flights, lists and reviews.

Covers: export/example_source.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.export.example_bank import bank_from_examples, parse_examples
from overflight.export.example_source import read_examples
from overflight.runtime.bank import LabelBank
from overflight.runtime.engines import open_reference
from overflight.runtime.errors import UsageError
from overflight.runtime.flight.directory import JOURNAL
from overflight.runtime.flight.journal_reader import JournalReader
from overflight.station.archive import Archive
from overflight.station.review import finding_number, mark
from overflight.station.review.store import example_list

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.runtime.bundle import Bundle

pytest.importorskip("cv2")
RED, BLUE = (250, 30, 30), (30, 30, 250)


@pytest.fixture
def flight(fly_over: Callable[..., Path]) -> Path:
    return fly_over("flown", [RED] * 12 + [BLUE] * 12)


def test_a_flight_gives_the_embeddings_that_it_kept(flight: Path, colour_bundle: Bundle, tmp_path: Path) -> None:
    numbers = [observation.frame for observation in JournalReader(flight / JOURNAL).observations()]
    kept = JournalReader(flight / JOURNAL).embeddings()[1].astype(np.float32)
    (tmp_path / "list.txt").write_text(f"# two ways\n{flight}#{numbers[0]},{numbers[3]}-{numbers[5]}\n")
    engine = open_reference(colour_bundle)
    found = read_examples(tmp_path / "list.txt", colour_bundle, engine)
    engine.close()
    assert found.vectors == pytest.approx(kept[[0, 3, 4, 5]], abs=1e-3)
    assert len(set(found.hashes)) >= 1
    assert len(found.hashes) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [("", "is no frame"), ("x", "is no frame"), ("5-2", "a first and a last frame"), ("999999", "no frame 999999"),
     ("0-1000000000", "at most a million"), ("0.3", "tile 3")],
)  # fmt: skip
def test_rows_that_are_not_there_are_refused(flight: Path, colour_bundle: Bundle, rows: str, message: str) -> None:
    source = parse_examples([f"red={flight}#{rows}"])["red"]
    with pytest.raises(UsageError, match=message):
        bank_from_examples(colour_bundle, {"red": source}, [source], name="x")


def test_a_flight_without_frames_is_refused(flight: Path, colour_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="name its frames"):
        bank_from_examples(colour_bundle, {"red": flight}, [flight], name="x")


def test_rejected_findings_become_the_background(flight: Path, colour_bundle: Bundle, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    added, _ = archive.add(flight)
    numbers = [observation.frame for observation in JournalReader(flight / JOURNAL).observations()]
    for frame in numbers[-10:]:
        mark(archive, finding_number(added.id, frame), "rejected", "ana", label="water")
    mark(archive, finding_number(added.id, numbers[0]), "confirmed", "ana", label="red")
    assert example_list(archive, "rejected", "fire") == []
    (line,) = example_list(archive, "rejected", "water")
    listed = archive.directory / "rejected.txt"
    listed.write_text(line)
    red = parse_examples([f"red={flight}#{numbers[0]}-{numbers[9]}"])
    made = bank_from_examples(colour_bundle, red, [listed], name="taught")
    made.bank.save(tmp_path / "bank.safetensors")
    (label,) = LabelBank.load(tmp_path / "bank.safetensors").header.labels
    assert (len(label.examples), [shots for shots, _, _ in label.curve]) == (10, [1, 2, 4, 8])
    assert made.measured["red"].auroc > 0.95
