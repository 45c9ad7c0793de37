"""Lay frames of a flight with their answers side by side, for a person to look at."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.models.picture import draw_contact
from overflight.runtime.sources.image import opencv

if TYPE_CHECKING:
    import numpy as np

HERE = Path(__file__).parent


def read_answers(flight: Path) -> dict[int, str]:
    """Return each frame's number and its caption: the label that won, or "unknown", and its cosine."""
    found = {}
    for line in (flight / "observations.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        best = max(one["scores"], key=lambda score: score["cosine"])
        found[one["frame"]] = f"{one['frame']}: {one['label'] or 'unknown'} ({best['cosine']:.2f})"
    return found


def gather(video: Path, answers: dict[int, str], every: int) -> list[tuple[str, np.ndarray]]:
    """Return every so-many-th frame of the video, RGB, with its caption."""
    cv2 = opencv()
    reader = cv2.VideoCapture(str(video))
    found: list[tuple[str, np.ndarray]] = []
    number = 0
    while True:
        there, pixels = reader.read()
        if not there:
            return found
        if number % every == 0 and number in answers:
            found.append((answers[number], cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)))
        number += 1


def main() -> None:
    """Draw the contact sheet of the demo's flight."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--flight", type=Path, required=True, help="the flight that `overflight demo` left")
    parser.add_argument("--video", type=Path, default=HERE.parent / "station" / "demo" / "flight.mp4")
    parser.add_argument("--every", type=int, default=27)
    parser.add_argument("--out", type=Path, default=HERE / "contact.jpg")
    args = parser.parse_args()
    draw_contact(gather(args.video, read_answers(args.flight), args.every), args.out)


if __name__ == "__main__":
    main()
