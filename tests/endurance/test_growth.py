"""Growth: a hundred thousand frames leave no more in memory, and no more files open, than a thousand.

``OVERFLIGHT_ENDURANCE_FRAMES=100000 pytest -m slow -s tests/endurance/test_growth.py`` runs them all, with the tiny
engine of the tests, through the whole run path: source, resize, engine, match, decide, events, journal.
``OVERFLIGHT_ENDURANCE_BUNDLE`` names a bundle to be flown instead.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle
from overflight.runtime.flight.run import fly
from overflight.runtime.records import Observation
from overflight.runtime.stream import Stream

pytest.importorskip("onnxruntime")
FRAMES = int(os.environ.get("OVERFLIGHT_ENDURANCE_FRAMES", "4000"))
SIZE = os.environ.get("OVERFLIGHT_ENDURANCE_SIZE", "64x48")
BUNDLE = os.environ.get("OVERFLIGHT_ENDURANCE_BUNDLE")
# The tiny engine sees a thousand frames before the journal's first commit, half a second in, has opened three files and
# filled SQLite's page cache. From then on nothing may grow.
JOURNAL_MB, JOURNAL_FILES = 8, 3
GROWTH_MB = 2


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
def test_nothing_grows(colour_bundle: Bundle, colour_bank: LabelBank, tmp_path: Path) -> None:
    """Counted at 1,000 frames, at every tenth of the way, and at the end."""
    taken: dict[int, tuple[float, int]] = {}

    def watch(stream: Stream, observation: Observation) -> None:
        number = observation.frame + 1
        if number == 1000 or number % (FRAMES // 10) == 0:
            taken[number] = (resident_mb(), open_files())

    with Overflight.load(BUNDLE or colour_bundle, None if BUNDLE else colour_bank) as overflight:
        fly(overflight, f"test://?frames={FRAMES}&fps=0&size={SIZE}", tmp_path / "flight", on_observation=watch)
    print()
    for number, (resident, files) in taken.items():
        print(f"{number} frames: {resident:.1f} MB resident, {files} files open")
    first, last = taken[1000], taken[max(taken)]
    assert last[0] - first[0] < JOURNAL_MB
    if FRAMES >= 100_000:
        assert last[0] - taken[FRAMES // 10 * 3][0] < GROWTH_MB
    assert last[1] <= first[1] + JOURNAL_FILES
