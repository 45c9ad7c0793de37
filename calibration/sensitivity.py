"""Sensitivity: the fidelity that each product costs in int8; the worst are returned to float."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.calibration.graph import open_session
from overflight.calibration.quantise import quantise
from overflight.runtime.errors import EngineError
from overflight.runtime.evaluation.fidelity import limits, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from overflight.calibration.graph import TowerGraph
    from overflight.calibration.recipe import ProductRecipe, Recipe
    from overflight.runtime.bank import LabelBank
    from overflight.runtime.engines.record import Fidelity

    Report = Callable[[float], None]
    Factors = dict[str, NDArray[np.float32]]

_CAUTION = 0.6  # share of the gate's room that may be used up on tuning frames: others will be worse
_PROBES = 4  # frames per block: ranking needs few, and a large tower has many blocks
_MOST_RETURNED = 0.5  # of all products; beyond that int8 is not worth having
_STANDS_OUT = 10.0  # times the median cost: such a product brings most of the error, and little of the speed
_MOST_STANDING_OUT = 0.25  # of all products


def embed_with(graph: bytes, frames: NDArray[np.uint8], report: Report = lambda share: None) -> NDArray[np.float32]:
    """Run a graph over frames one by one."""
    session = open_session(graph)
    answers = []
    for index, frame in enumerate(frames):
        answers.append(session.run(["embeddings"], {"frames": frame[None]})[0][0])
        report((index + 1) / len(frames))
    return np.stack(answers)


def measure_blocks(
    tower: TowerGraph,
    recipe: Recipe,
    smoothing: Factors,
    frames: NDArray[np.uint8],
    reference: NDArray[np.float32],
    report: Report = lambda share: None,
) -> Recipe:
    """Fill in each product's ``loss``: 1 - mean cosine on ``frames`` with only the products of its block in int8."""
    blocks: dict[str, list[str]] = {}
    for product in recipe.quantised():
        blocks.setdefault(_block(product.name), []).append(product.name)
    losses = {}
    probes = np.linspace(0, len(frames) - 1, min(_PROBES, len(frames))).astype(int)
    for index, (block, names) in enumerate(blocks.items()):
        answers = embed_with(quantise(tower, recipe, smoothing, only=names).encoded(), frames[probes])
        losses[block] = 1 - measure(reference[probes], answers).cosine_mean
        report((index + 1) / len(blocks))
    measured = (msgspec.structs.replace(one, loss=losses.get(_block(one.name))) for one in recipe.products)
    return msgspec.structs.replace(recipe, products=tuple(measured))


def return_worst(
    tower: TowerGraph,
    recipe: Recipe,
    smoothing: Factors,
    frames: NDArray[np.uint8],
    reference: NDArray[np.float32],
    banks: Sequence[LabelBank],
    report: Callable[[str], None] = lambda step: None,
) -> Recipe:
    """Return products to float, worst first, until the int8 tower is well within its gate on ``frames``.

    Raises EngineError when half of them are not enough.
    """
    most = int(len(recipe.products) * _MOST_RETURNED)
    for returned in range(most + 1):
        answers = embed_with(quantise(tower, recipe, smoothing).encoded(), frames)
        found = measure(reference, answers, banks)
        if comfortable(found):
            return return_standing_out(recipe)
        worst = max(recipe.quantised(), key=_cost)
        if returned == most:
            break
        report(f"{worst.name} stays in float")
        why = f"cosine {found.cosine_mean:.4f} with it in int8"
        left = (msgspec.structs.replace(one, kept=why) if one == worst else one for one in recipe.products)
        recipe = msgspec.structs.replace(recipe, products=tuple(left))
    raise EngineError(
        f"int8 keeps a cosine of only {found.cosine_mean:.4f} with half of the products in float, worst {worst.name}; "
        "calibrate with frames like those of your flights, or use fp16"
    )


def return_standing_out(recipe: Recipe) -> Recipe:
    """Return to float the few products that cost far more than the others: on other frames they would cost the most.

    A block of which one is in float already is left alone: its loss was measured with that one in int8.
    """
    settled = {_block(one.name) for one in recipe.products if one.kept is not None}
    costs = {one.name: _cost(one) for one in recipe.quantised()}
    limit = _STANDS_OUT * float(np.median(list(costs.values())))
    most = int(len(recipe.products) * _MOST_STANDING_OUT) - (len(recipe.products) - len(costs))
    standing_out = [name for name, cost in costs.items() if cost > limit and _block(name) not in settled]
    worst = set(sorted(standing_out, key=lambda name: -costs[name])[: max(0, most)])
    why = f"costs over {_STANDS_OUT:.0f} times the usual"
    products = (msgspec.structs.replace(one, kept=why) if one.name in worst else one for one in recipe.products)
    return msgspec.structs.replace(recipe, products=tuple(products))


def comfortable(found: Fidelity) -> bool:
    """Whether a fidelity on tuning frames leaves room for frames that are harder."""
    needed = limits("int8")
    same = all(not one.top1 < min(needed.top1, 1 - 1 / found.samples) - 1e-9 for one in found.agreement)
    return same and all(
        getattr(found, name) >= 1 - (1 - getattr(needed, name)) * _CAUTION
        for name in ("cosine_mean", "cosine_p1", "variance_kept")
    )


def _cost(product: ProductRecipe) -> float:
    """Rank a product by its block's loss and its own share of the error there."""
    return (product.loss if product.loss is not None else 1.0) * product.error**2


def _block(name: str) -> str:
    return ".".join(name.split(".")[:2])
