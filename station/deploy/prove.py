"""Proving: a staged bundle with its bank observes a few frames of the test source, in a process of its own.

Run as ``python -m overflight.station.deploy.prove BUNDLE BANK``; the last line of standard output is the result.
"""

from __future__ import annotations

import math
import sys
from itertools import islice

FRAMES = 5
SOURCE = f"test://?frames={FRAMES}&fps=0&size=640x360"


def prove(bundle: str, bank: str) -> str:
    """Observe the test source; return what was used. Raises OverflightError where it does not fly."""
    from overflight.runtime import Overflight
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.errors import EngineError
    from overflight.runtime.evaluation.verify import verify

    opened = Bundle.open(bundle)
    if "golden.npz" in opened.manifest.files:
        found = verify(opened)
        if not found.passed:
            raise EngineError(f"{bundle}: {'; '.join(found.reasons)}")
    with Overflight.load(opened, bank) as overflight:
        observations = list(islice(overflight.stream(SOURCE), FRAMES))
        scores = [score.score for one in observations for score in one.scores]
        if not observations or not all(math.isfinite(score) for score in scores):
            raise EngineError(f"{bundle}: {len(observations)} of {FRAMES} frames were observed, expected finite scores")
        info = overflight.engine.info
        return f"{info.target} {info.precision}, {len(observations)} frames"


def main() -> None:
    """Print one line; exit code 1 where the bundle does not fly."""
    from overflight.runtime.errors import OverflightError

    try:
        print(prove(sys.argv[1], sys.argv[2]))
    except OverflightError as error:
        print(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
