"""Calibration: from frames to the bundle's fp16 and int8 graphs, each with its fidelity on held-out frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.calibration.checkpointing import Keeper
from overflight.calibration.clip import LEVELS, choose, half
from overflight.calibration.emulate import emulate
from overflight.calibration.graph import TowerGraph
from overflight.calibration.halve import beyond, halve
from overflight.calibration.quantise import attention_reads, eligible, quantise
from overflight.calibration.ranges import Activity, extremes, watch
from overflight.calibration.recipe import SCHEMA, ProductRecipe, Recipe
from overflight.calibration.select import Candidates, divide, find_candidates
from overflight.calibration.sensitivity import embed_with, measure_blocks, return_worst
from overflight.calibration.smooth import can_smooth
from overflight.calibration.vary import vary
from overflight.runtime.bank import LabelBank
from overflight.runtime.engines import REFERENCE, open_reference
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.duplicates import difference_hash, hash_pixels
from overflight.runtime.evaluation.fidelity import judge, measure
from overflight.runtime.evaluation.holdout import HeldOut, PickedFrame, PickedFrames
from overflight.runtime.progress import Report, unreported

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle, Quantised
    from overflight.runtime.engines.record import FidelityVerdict

    Factors = dict[str, NDArray[np.float32]]

_VARIED_HELD_OUT = 4  # one in so many held-out frames is judged in a varied copy too
_EXTREME_FRAMES = 16  # every tensor of a tower is looked at, so few frames; the limit leaves them room


@dataclass(frozen=True, slots=True)
class Calibration:
    """The results of a calibration, not yet in a bundle."""

    recipe: Recipe
    smoothing: Factors
    picked: PickedFrames
    holdout: HeldOut
    verdicts: dict[Quantised, FidelityVerdict]
    graphs: dict[Quantised, bytes]


def calibrate(
    bundle: Bundle,
    sources: Sequence[str],
    *,
    count: int = 256,
    attention: bool = False,
    report: Report = unreported,
) -> Calibration:
    """Select frames from ``sources``, quantise the bundle's image tower with them and measure the result.

    ``attention`` also quantises the products inside attention. Finished stages are kept until the end, so that a call
    with the same arguments resumes an interrupted one. Raises UsageError for frames that cannot calibrate,
    EngineError when no faithful int8 form is found.
    """
    tower = TowerGraph.open(bundle.file(REFERENCE))
    tower.check_quantisable()
    keeper = Keeper("with varied copies", bundle.sha256, list(sources), count, attention)
    candidates = _candidates(keeper, bundle, sources, count, report)
    embeddings = _embeddings(keeper, bundle, candidates.frames, report)
    described = divide(candidates, embeddings, count)
    part = {
        name: np.array([index for index, one in enumerate(described) if one is not None and one.part == name])
        for name in ("ranges", "tuning", "holdout")
    }
    frames = {name: candidates.frames[rows] for name, rows in part.items()}
    varied = {"ranges": vary(frames["ranges"]), "tuning": vary(frames["tuning"])}
    varied["holdout"] = vary(frames["holdout"][::_VARIED_HELD_OUT])
    frames = {name: np.concatenate([own, varied[name]]) for name, own in frames.items()}
    exact = {
        name: np.concatenate([embeddings[part[name]], _embed_varied(keeper, bundle, name, varied[name], report)])
        for name in ("tuning", "holdout")
    }
    recipe, smoothing = _choose(keeper, bundle, tower, frames, attention, report)
    banks = bundled_banks(bundle)
    tuning, reference = frames["tuning"], exact["tuning"]
    recipe = _measured(keeper, tower, recipe, smoothing, tuning, reference, report)
    report("searching int8", 0.0)
    recipe = return_worst(
        tower, recipe, smoothing, tuning, reference, banks, lambda step: report(f"searching int8: {step}", 1.0)
    )
    report("searching int8", 1.0)
    graphs = make_graphs(tower, recipe, smoothing)
    kept = [one for one in described if one is not None]
    kept += _describe_varied(kept, varied["holdout"])
    truth = [one.folder for one in kept if one.part == "holdout"]
    holdout = HeldOut.of(frames["holdout"], truth, "hold-out")
    verdicts = judge_graphs(graphs, holdout, exact["holdout"], banks, report)
    picked = PickedFrames(SCHEMA, tuple(kept), candidates.refused)
    keeper.forget()
    return Calibration(recipe, smoothing, picked, holdout, verdicts, graphs)


def make_graphs(tower: TowerGraph, recipe: Recipe, smoothing: Factors) -> dict[Quantised, bytes]:
    """Make both graphs from a recipe: the same tower and recipe give the same bytes."""
    unknown = {one.name for one in recipe.products} ^ {product.name for product in eligible(tower)}
    if unknown:
        raise UsageError(f"the recipe is of another graph (differs in {min(unknown)}); calibrate this bundle again")
    return {
        "fp16": halve(tower, recipe.full).encoded(),
        "int8": halve(quantise(tower, recipe, smoothing), recipe.full).encoded(),
    }


def bundled_banks(bundle: Bundle) -> list[LabelBank]:
    """Return the label banks that ship with a bundle."""
    return [LabelBank.load(bundle.file(name)) for name in sorted(bundle.manifest.files) if name.startswith("labels/")]


def _candidates(keeper: Keeper, bundle: Bundle, sources: Sequence[str], count: int, report: Report) -> Candidates:
    def make() -> dict[str, NDArray[np.uint8]]:
        found = find_candidates(
            sources, bundle.manifest.resize, 2 * count, lambda share: report("reading frames", share)
        )
        about = msgspec.json.encode((found.described, found.refused))
        return {"frames": found.frames, "about": np.frombuffer(about, np.uint8)}

    kept = keeper.arrays("candidates", make)
    described, refused = msgspec.json.decode(kept["about"].tobytes(), type=tuple[list[PickedFrame], dict[str, int]])
    return Candidates(kept["frames"], described, refused)


def _embeddings(
    keeper: Keeper, bundle: Bundle, frames: NDArray[np.uint8], report: Report, kept: str = "embeddings"
) -> NDArray[np.float32]:
    engine = open_reference(bundle)

    def make(index: int) -> NDArray[np.float32]:
        report("embedding frames", (index + 1) / len(frames))
        return np.asarray(engine.embed(frames[index : index + 1])[0])

    try:
        return keeper.rows(kept, len(frames), engine.width, make)
    finally:
        engine.close()


def _embed_varied(
    keeper: Keeper, bundle: Bundle, part: str, frames: NDArray[np.uint8], report: Report
) -> NDArray[np.float32]:
    return _embeddings(keeper, bundle, frames, report, f"varied-{part}")


def _describe_varied(kept: Sequence[PickedFrame], copies: NDArray[np.uint8]) -> list[PickedFrame]:
    """Describe the varied copies in the hold-out by the frames that they were made from."""
    own = [one for one in kept if one.part == "holdout"][::_VARIED_HELD_OUT]
    return [
        msgspec.structs.replace(
            one,
            sha256=hash_pixels(copy),
            likeness=f"{difference_hash(copy):016x}",
            brightness=round(float(copy.mean()), 1),
            stratum="varied",
        )
        for one, copy in zip(own, copies, strict=True)
    ]


def _choose(
    keeper: Keeper,
    bundle: Bundle,
    tower: TowerGraph,
    frames: dict[str, NDArray[np.uint8]],
    attention: bool,
    report: Report,
) -> tuple[Recipe, Factors]:
    """Read ranges, and choose every product's clip and smoothing and every node's float type by them."""
    products = eligible(tower)
    largest = keeper.arrays("extremes", lambda: _extremes(tower, frames, report))
    reached = {name: float(value) for name, value in largest.items()}

    def read() -> Factors:
        seen = watch(tower, products, frames["ranges"], frames["tuning"], lambda share: report("reading ranges", share))
        return {f"{name}/{kind}": getattr(one, kind) for name, one in seen.items() for kind in ("peak", "rows")}

    kept = keeper.arrays("ranges", read)
    chosen, smoothing = [], {}
    for index, product in enumerate(products):
        seen = Activity(kept[f"{product.name}/peak"], kept[f"{product.name}/rows"])
        choice = choose(seen, tower.array(product.weight), smooth=can_smooth(tower, product))
        chosen.append(ProductRecipe(product.name, choice.scale, choice.clip, choice.alpha, choice.error))
        if choice.smoothing is not None:
            smoothing[product.name] = choice.smoothing
        report("choosing ranges", (index + 1) / len(products))
    full = beyond(reached)
    recipe = Recipe(
        schema=SCHEMA,
        tower=bundle.manifest.tower,
        products=tuple(chosen),
        attention=_attention_scales(tower, reached) if attention else {},
        full=full,
        extremes={name: round(reached[name], 3) for name in full},
    )
    return recipe, smoothing


def _extremes(tower: TowerGraph, frames: dict[str, NDArray[np.uint8]], report: Report) -> Factors:
    part = frames["ranges"][:: max(1, len(frames["ranges"]) // _EXTREME_FRAMES)]
    found = extremes(tower, part, lambda share: report("reading extremes", share))
    return {name: np.array(value, np.float32) for name, value in found.items()}


def _attention_scales(tower: TowerGraph, reached: dict[str, float]) -> dict[str, float]:
    """Return the scales of the tensors inside attention: their extremes; shares of a softmax end at one."""
    heads = next(node for node in tower.model.graph.node if node.name.endswith(".attention.q.heads"))
    _, tokens, _, depth = (int(edge) for edge in tower.array(heads.input[1]))
    reads = attention_reads(tower, tokens, depth)
    return {
        pair: half(min(reached[name], 1.0 if ".shares" in name else np.inf) / LEVELS) for pair, name in reads.items()
    }


def _measured(
    keeper: Keeper,
    tower: TowerGraph,
    recipe: Recipe,
    smoothing: Factors,
    frames: NDArray[np.uint8],
    reference: NDArray[np.float32],
    report: Report,
) -> Recipe:
    def make() -> dict[str, NDArray[np.uint8]]:
        measured = measure_blocks(
            tower, recipe, smoothing, frames, reference, lambda share: report("measuring sensitivity", share)
        )
        return {"recipe": np.frombuffer(msgspec.json.encode(measured), np.uint8)}

    return msgspec.json.decode(keeper.arrays("sensitivity", make)["recipe"].tobytes(), type=Recipe)


def judge_graphs(
    graphs: dict[Quantised, bytes],
    holdout: HeldOut,
    reference: NDArray[np.float32],
    banks: Sequence[LabelBank],
    report: Report,
) -> dict[Quantised, FidelityVerdict]:
    """Hold graphs to the reference's embeddings ``[N, D]`` of the hold-out, half precision emulated."""
    verdicts: dict[Quantised, FidelityVerdict] = {}
    for precision, encoded in graphs.items():
        answers = embed_with(emulate(encoded), holdout.frames, partial(report, f"judging {precision}"))
        found = measure(reference, answers, banks, frames=holdout.sha256, truth=holdout.truth)
        verdicts[precision] = judge(found, precision)
    return verdicts
