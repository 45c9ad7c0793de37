"""Bulk on a large mosaic: memory, tiles a second, rows compared with single calls, and two kills on the way.

``python -m overflight.bench.bulk make MOSAIC.tif --pictures FOLDER`` makes a GeoTIFF of 20,000 x 20,000 pixels of small
GeoTIFFs; ``... measure MOSAIC.tif --out STORE`` embeds it with the workers killed twice and prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.engines import open_reference
from overflight.runtime.overflight import embed
from overflight.runtime.sources.mosaic import Mosaic, View
from overflight.station.bulk.rows import pyarrow
from overflight.station.bulk.store import BulkStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TILE_PX = 400
_KEYS = (1, 1, 0, 4, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32611, 3076, 0, 1, 9001)  # UTM zone 11 north, metres


def make_mosaic(path: Path, pictures: Path, side_px: int = 20_000) -> None:
    """Write a tiled GeoTIFF of the pictures of a folder, turned and mirrored so that no two neighbours are equal."""
    import tifffile

    parts: list[NDArray[np.uint8]] = []
    for one in sorted(pictures.rglob("*.tif")):
        frame = next(Mosaic(one).frames())
        parts.append(frame.pixels[:TILE_PX, :TILE_PX, ::-1])
    across = side_px // TILE_PX

    def tiles() -> Iterator[NDArray[np.uint8]]:
        chance = np.random.default_rng(0)
        for _ in range(across * across):
            part = np.rot90(parts[chance.integers(len(parts))], int(chance.integers(4)))
            yield np.ascontiguousarray(part[:, ::-1] if chance.integers(2) else part)

    tifffile.imwrite(
        path, tiles(), shape=(side_px, side_px, 3), dtype=np.uint8, tile=(TILE_PX, TILE_PX), photometric="rgb",
        compression="deflate", bigtiff=True,
        extratags=[
            (33550, "d", 3, (0.1, 0.1, 0.0), True),
            (33922, "d", 6, (0.0, 0.0, 0.0, 255_948.1, 4_110_511.2, 0.0), True),
            (34735, "H", len(_KEYS), _KEYS, True),
        ],
    )  # fmt: skip


def measure(mosaic: Path, out: Path, kills: int, arguments: list[str]) -> dict[str, object]:
    """Embed the mosaic in a process that is killed so often, and compare every 20th row with a single call."""
    command = [sys.executable, "-m", "overflight", "bulk", str(mosaic), "--out", str(out), *arguments]
    began = time.monotonic()
    for kill in range(kills):
        _kill_when(command, out, wanted=2 * (kill + 1))
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    wall_s = time.monotonic() - began
    records = list(BulkStore(out).records())
    busy_s = sum(record.costs.wall_s for record in records)
    rows = sum(record.rows for record in records)
    return {
        "exit": finished.returncode,
        "rows": rows,
        "shards": len(records),
        "kills": kills,
        "peak_mb_of_a_worker": max(record.costs.peak_bytes for record in records) / 1e6,
        "rows_per_worker_s": rows / busy_s,
        "rows_per_cpu_s": rows / sum(record.costs.cpu_s for record in records),
        "wall_s_with_kills": wall_s,
        "largest_difference": _difference(mosaic, out),
    }


def _kill_when(command: list[str], out: Path, wanted: int) -> None:
    """Kill the run and its workers once so many shards are done."""
    child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(list(out.glob("manifests/*.json"))) < wanted:
        time.sleep(0.05)
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _difference(mosaic: Path, out: Path) -> float:
    """Return the largest difference between stored rows and single calls of the fp32 reference."""
    bundle = Bundle.open(default_bundle())
    engine = open_reference(bundle, threads=1)
    worst = 0.0
    store = BulkStore(out)
    for shard in store.shards():
        table = pyarrow().parquet.read_table(store.parquet_path(shard.number))
        rows = table.select(["frame", "embedding"]).to_pylist()
        source = Mosaic(mosaic, view=View(shard.items[0].window_px))
        for row in rows[::20]:
            frame = next(source.frames(row["frame"], row["frame"] + 1))
            worst = max(worst, float(np.abs(embed(engine, bundle, [frame])[0] - np.array(row["embedding"])).max()))
        source.close()
    engine.close()
    return worst


def main() -> None:
    """Make a mosaic, or measure on one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("make", "measure"))
    parser.add_argument("mosaic", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kills", type=int, default=2)
    known, rest = parser.parse_known_args()
    if known.what == "make":
        make_mosaic(known.mosaic, known.pictures)
    else:
        print(json.dumps(measure(known.mosaic, known.out, known.kills, rest)))


if __name__ == "__main__":
    main()
