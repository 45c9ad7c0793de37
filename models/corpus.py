"""Unpack the captioned scenes once: pixels into a memory map, texts and splits into an index."""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from overflight.models.duplicates import difference_hash, match

SOURCE_PX = 150
SPLITS = ("train", "valid", "test")
HASH_DISTANCE = 2


@dataclass(frozen=True)
class Corpus:
    """Every image and caption of the archive, in archive order.

    `pixels` is uint8 `[N, 150, 150, 3]` RGB; `scene` indexes `scenes`; `kept` is False for
    training images that look like a validation or test image.
    """

    pixels: np.ndarray
    files: list[str]
    scene: np.ndarray
    scenes: list[str]
    split: np.ndarray
    captions: list[list[str]]
    kept: np.ndarray

    def rows(self, split: str) -> np.ndarray:
        """Return the usable row numbers of a split: all of it, less the dropped training images."""
        return np.flatnonzero((self.split == split) & self.kept)


def read_index(archive: zipfile.ZipFile) -> list[dict[str, object]]:
    """Return the archive's caption records, one per image."""
    with archive.open("captions.jsonl") as lines:
        return [json.loads(line) for line in lines]


def decode(data: bytes) -> np.ndarray:
    """Decode one JPEG to uint8 `[150, 150, 3]` RGB."""
    with Image.open(io.BytesIO(data)) as image:
        frame = image.convert("RGB")
        if frame.size != (SOURCE_PX, SOURCE_PX):
            frame = frame.resize((SOURCE_PX, SOURCE_PX), Image.Resampling.BICUBIC)
        return np.asarray(frame)


def find_leaks(hashes: np.ndarray, split: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (train row, held-out row, distance) of training images too like held-out ones."""
    train = np.flatnonzero(split == "train")
    held_out = np.flatnonzero(split != "train")
    pairs = match(hashes[train], hashes[held_out], HASH_DISTANCE)
    return [(int(train[a]), int(held_out[b]), distance) for a, b, distance in pairs]


def unpack(source: Path, work: Path) -> None:
    """Decode the archive into `pixels.npy` and write `index.json` with hashes and leaks."""
    work.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source) as archive:
        records = read_index(archive)
        shape = (len(records), SOURCE_PX, SOURCE_PX, 3)
        partial = work / "pixels.partial.npy"
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for row, record in enumerate(records):
            pixels[row] = decode(archive.read(str(record["file"])))
            if row % 1000 == 999:
                print(f"decoded {row + 1} of {len(records)}", flush=True)
    pixels.flush()
    hashes = np.stack([difference_hash(frame) for frame in pixels])
    split = np.array([str(record["split"]) for record in records])
    leaks = find_leaks(hashes, split)
    (work / "index.json").write_text(json.dumps({"records": records, "leaks": leaks}))
    partial.rename(work / "pixels.npy")
    dropped = {pair[0] for pair in leaks}
    print(f"{len(records)} images; {len(dropped)} training images match a held-out image")


def load(work: Path, source: Path | None = None) -> Corpus:
    """Map the unpacked corpus from `work`, unpacking `source` first when that was not yet done."""
    if not (work / "pixels.npy").exists():
        if source is None:
            raise FileNotFoundError(f"no corpus in {work}; run overflight.models.corpus first")
        unpack(source, work)
    index = json.loads((work / "index.json").read_text())
    records = index["records"]
    scenes = sorted({record["scene"] for record in records})
    kept = np.ones(len(records), dtype=bool)
    kept[[pair[0] for pair in index["leaks"]]] = False
    return Corpus(
        pixels=np.load(work / "pixels.npy", mmap_mode="r"),
        files=[record["file"] for record in records],
        scene=np.array([scenes.index(record["scene"]) for record in records]),
        scenes=scenes,
        split=np.array([record["split"] for record in records]),
        captions=[record["captions"] for record in records],
        kept=kept,
    )


def main() -> None:
    """Unpack the archive; safe to run again."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--source", type=Path, default=Path("../shared/data/aid_rsicd.zip"))
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository")
    args = parser.parse_args()
    corpus = load(args.work, args.source)
    for split in SPLITS:
        print(f"{split}: {len(corpus.rows(split))} of {int((corpus.split == split).sum())} images")


if __name__ == "__main__":
    main()
