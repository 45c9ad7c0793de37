"""Repetition of a recorded calibration: the same graphs from the weights, without the original frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from overflight.calibration.calibrate import bundled_banks, judge_graphs, make_graphs
from overflight.calibration.graph import TowerGraph
from overflight.calibration.recipe import SCHEMA, load_recipe
from overflight.calibration.select import find_candidates
from overflight.calibration.write_bundle import enrich
from overflight.runtime.engines import REFERENCE, open_reference
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.fidelity import embed_all
from overflight.runtime.evaluation.holdout import HeldOut, PickedFrames
from overflight.runtime.progress import Report, unreported

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from overflight.calibration.recipe import Recipe
    from overflight.runtime.bundle import Bundle, Quantised
    from overflight.runtime.engines.record import FidelityVerdict

_MOST_HELD_OUT = 256


def repeat(
    bundle: Bundle, folder: Path, sources: Sequence[str] = (), report: Report = unreported
) -> tuple[Bundle, Recipe, dict[Quantised, FidelityVerdict]]:
    """Give a bundle the graphs that the recipe in ``folder`` makes of its tower.

    Distinct frames of ``sources`` become its hold-out, on which the graphs are judged; without any there is no verdict,
    and building an engine asks for frames. Raises UsageError for a recipe of another tower.
    """
    recipe, smoothing = load_recipe(folder)
    if recipe.tower != bundle.manifest.tower:
        raise UsageError(
            f"{folder}: a recipe for tower {recipe.tower[:12]}, the bundle's is {bundle.manifest.tower[:12]}; "
            "calibrate again"
        )
    graphs = make_graphs(TowerGraph.open(bundle.file(REFERENCE)), recipe, smoothing)
    if not sources:
        return enrich(bundle, graphs, recipe, smoothing), recipe, {}
    found = find_candidates(sources, bundle.manifest.resize, 1, lambda share: report("reading frames", share))
    step = max(1, len(found.frames) // _MOST_HELD_OUT)
    described = tuple(msgspec.structs.replace(one, part="holdout") for one in found.described[::step])
    holdout = HeldOut.of(found.frames[::step], [one.folder for one in described], "hold-out")
    engine = open_reference(bundle)
    try:
        reference = embed_all(engine, holdout.frames)
    finally:
        engine.close()
    verdicts = judge_graphs(graphs, holdout, reference, bundled_banks(bundle), report)
    picked = PickedFrames(SCHEMA, described, found.refused)
    made = enrich(bundle, graphs, recipe, smoothing, verdicts=verdicts, picked=picked, holdout=holdout)
    return made, recipe, verdicts
