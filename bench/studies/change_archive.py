"""Whether a change is found by text among all tiles of an archive: python -m overflight.bench.studies.change_archive.

Needs ``../shared/data/levir_cd`` and ``neon_pairs``. An archive of mosaics is made as ``overflight archive add`` makes
it: the LEVIR pairs, at made-up places and dates, and the NEON pairs, in which only the season changed. A tile is right
where the mask of new buildings covers enough of it. Prints JSON, for the LEVIR mosaics and for all.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from math import comb
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.bench.studies.changes import QUERIES, SIDE, covered_shares, read_levir
from overflight.export.encode import TextEncoder
from overflight.export.prompts import read_templates
from overflight.runtime.overflight import Overflight
from overflight.runtime.tiles import Tiling
from overflight.station.archive import Archive
from overflight.station.archive.sources import add_source
from overflight.station.changes.retrieve import ChangeQuery
from overflight.station.ground.towers import open_bundle
from overflight.station.search.changed import ChangesFound, search_changes
from overflight.station.search.filters import Filters
from overflight.station.search.terms import embed_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

LEAST = (0.05, 0.2, 0.3)  # share of a tile under the mask from which it is right
MOST = 10
ABSENT = (
    "new airport runway", "new stadium", "new harbour with ships", "new baseball field", "new railway tracks",
    "new storage tanks", "new bridge over a river", "new beach", "meadow became lake", "houses became forest",
    "new solar field", "forest became desert",
)  # fmt: skip
_AT = (256_000.0, 4_107_000.0)
_APART_M = 2_000.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    levir = read_levir(given.data)
    with tempfile.TemporaryDirectory() as folder:
        own, others = write_levir(levir, Path(folder)), copy_neon(given.data, Path(folder))
        archive = build(Path(folder) / "archive", [*own, *others], bundle)
        covered = covered_shares(levir)
        found = {
            "LEVIR": measure(archive, bundle, covered, Filters(flights=tuple(path.name for path in own))),
            "LEVIR and NEON": measure(archive, bundle, covered, Filters()),
        }
    print(json.dumps({"model": bundle.manifest.name, **found}, indent=1))


def measure(archive: Archive, bundle: Bundle, covered: NDArray[np.float64], filters: Filters) -> dict[str, Any]:
    """Search for all changes and compare the answers with the masks."""
    answers = {text: find(archive, bundle, text, filters) for text in (*QUERIES, *ABSENT)}
    present, absent = ([answers[text] for text in texts] for texts in (QUERIES, ABSENT))
    return {
        "pairs of tiles": present[0].searched,
        **{f"coverage above {least}": recall(present, covered > least) for least in LEAST},
        "found": found_share(present),
        "absent changes found": found_share(absent),
        "of these": [text for text in ABSENT if answers[text].hits],
        "cut-offs": [round(one.cutoff, 3) for one in present],
        "best": [one.best[0].score for one in present],
    }


def write_levir(levir: Sequence[tuple[NDArray[np.uint8], ...]], folder: Path) -> list[Path]:
    """Write each date of each pair as a GeoTIFF at a place of its own, with the date in its name."""
    import tifffile

    keys = [1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32611]
    paths = []
    for number, pair in enumerate(levir):
        for year, picture in zip((2015, 2018), pair[:2], strict=True):
            place = (0.0, 0.0, 0.0, _AT[0] + _APART_M * number, _AT[1], 0.0)
            tags = [(33550, "d", 3, (0.5, 0.5, 0.0), True), (33922, "d", 6, place, True)]
            tags.append((34735, "H", len(keys), tuple(keys), True))
            paths.append(folder / f"levir{number:02}-{year}.tif")
            tifffile.imwrite(paths[-1], np.ascontiguousarray(picture), extratags=tags, photometric="rgb")
    return paths


def copy_neon(data: Path, folder: Path) -> list[Path]:
    """Copy the NEON pairs under names with a date."""
    paths = []
    for year, part in ((2015, "a"), (2018, "b")):
        for path in sorted((data / "neon_pairs" / part).glob("*.tif")):
            paths.append(folder / f"{path.stem.replace('_', '')}-{year}.tif")
            shutil.copyfile(path, paths[-1])
    return paths


def build(directory: Path, sources: Sequence[Path], bundle: Bundle) -> Archive:
    """Add mosaics with their tiles to a new archive."""
    archive = Archive(directory)
    with Overflight.load(bundle, tiling=Tiling.parse(f"{SIDE}x{SIDE}")) as overflight:
        for source in sources:
            add_source(archive, source, overflight)
    return archive


def find(archive: Archive, bundle: Bundle, text: str, filters: Filters) -> ChangesFound:
    """Search the archive for one change."""
    forms = read_templates("aerial")
    with TextEncoder(bundle) as encoder:
        return search_changes(
            archive,
            bundle,
            ChangeQuery.parse(text),
            filters,
            embed=lambda texts: embed_texts(encoder, texts, forms),
            most=MOST,
        )


def recall(answers: Sequence[ChangesFound], right: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how often one of the best k tiles is right, next to chance, over the queries. ``right`` is ``[P, T]``."""
    hits = np.array([[_is_right(hit.after.flight_name, hit.after.tile, right) for hit in one.best] for one in answers])
    total, relevant = answers[0].searched, int(right.sum())
    found: dict[str, Any] = {"right": f"{relevant} of {total}"}
    for k in (1, 5, 10):
        chance = 1 - comb(total - relevant, k) / comb(total, k)
        found[f"recall at {k}"] = [round(float(hits[:, :k].any(axis=1).mean()), 3), round(chance, 3)]
    return found | {"precision at 10": [round(float(hits.mean()), 3), round(relevant / total, 3)]}


def found_share(answers: Sequence[ChangesFound]) -> str:
    """Return how many of the queries were answered with something else than "not found"."""
    return f"{sum(bool(one.hits) for one in answers)} of {len(answers)}"


def _is_right(name: str, tile: int, right: NDArray[np.bool_]) -> bool:
    pair = re.match(r"levir(\d+)-", name)
    return pair is not None and bool(right[int(pair[1]), tile - 1])


if __name__ == "__main__":
    main()
