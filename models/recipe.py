"""Run the whole recipe from the raw archive to the measured checkpoint, resuming where it stopped."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path


def list_stages(
    source: Path, work: Path, out: Path, results: Path, ground: list[Path], strangers: list[Path]
) -> list[tuple[str, list[str]]]:
    """Return (module, arguments) of every stage in order."""
    at = ["--work", str(work)]
    whole = str(work / "whole")
    folders = ["--unlabelled", *map(str, ground), "--strangers", *map(str, strangers)]
    checkpoint = ["--checkpoint", str(out)]
    calibration = ["--calibration", str(work / "calibration.json")]
    return [
        ("corpus", [*at, "--source", str(source)]),
        ("vocabulary", at),
        ("distil", at),
        ("cache", [*at, "--views", "1"]),
        ("train", at),
        ("align", at),
        ("checkpoint", [*at, "--text", "aligned", "--out", whole]),
        ("scale", [*at, "--checkpoint", whole, "--out", str(out), *folders]),
        ("calibrate", [*at, *checkpoint, "--out", str(work / "calibration.json")]),
        ("evaluate", [*at, *checkpoint, *calibration, "--split", "test", "--out", str(results)]),
    ]


def main() -> None:
    """Make the checkpoint from the archive with one command; run again to resume."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--source", type=Path, default=Path("../shared/data/aid_rsicd.zip"))
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--ground", type=Path, nargs="*", default=[], help="folders of PNG pictures of ground")
    parser.add_argument("--strangers", type=Path, nargs="*", default=[], help="folders of pictures of what no scene is")
    args = parser.parse_args()
    results = args.work / "results.json"
    for module, arguments in list_stages(args.source, args.work, args.out, results, args.ground, args.strangers):
        began = time.monotonic()
        print(f"== {module}", flush=True)
        command = [sys.executable, "-m", f"overflight.models.{module}", *arguments]
        subprocess.run(command, check=True)
        print(f"== {module}: {(time.monotonic() - began) / 60:.1f} min", flush=True)
    print(f"checkpoint in {args.out}, figures in {results}")


if __name__ == "__main__":
    main()
