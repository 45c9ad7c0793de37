"""Smoothing: moves range from activations into weights by scaling the parameters of the node before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from overflight.calibration.graph import Product, TowerGraph


def can_smooth(tower: TowerGraph, product: Product) -> bool:
    """Whether the factors of a product can be folded away: into the norm before it, or into the values it mixes."""
    return _norm(tower, product) is not None or _values(tower, product) is not None


def smooth(tower: TowerGraph, product: Product, factors: NDArray[np.float32]) -> None:
    """Divide what a product reads by ``factors`` ``[K]`` and multiply its weight's rows by them: the same function."""
    norm = _norm(tower, product)
    if norm is not None:
        for constant in norm:
            tower.put(constant, tower.array(constant) / factors)
    else:
        values = _values(tower, product)
        assert values is not None, product.name
        for constant in values:  # the last third of q, k and v, in weight [K, 3W] and bias [3W] alike
            array = tower.array(constant).copy()
            array[..., -product.inner :] /= factors
            tower.put(constant, array)
    tower.put(product.weight, tower.array(product.weight) * factors[:, None])


def _norm(tower: TowerGraph, product: Product) -> tuple[str, str] | None:
    """Return scale and shift of the norm that a product reads, if nothing else reads that norm."""
    node = tower.nodes.get(product.reads)
    if node is None or node.op_type != "LayerNormalization":
        return None
    readers = sum(product.reads in other.input for other in tower.model.graph.node)
    scale, shift = node.input[1], node.input[2]
    return (scale, shift) if readers == 1 else None


def _values(tower: TowerGraph, product: Product) -> tuple[str, str] | None:
    """Return weight and bias of q, k and v before an attention's output product: mixing keeps channels apart."""
    if not product.name.endswith(".attention.out"):
        return None
    qkv = product.name.removesuffix("out") + "qkv"
    weight, bias = f"{qkv}.weight", f"{qkv}.bias"
    joined = tower.constants.get(weight)
    if joined is None or bias not in tower.constants or list(joined.dims)[1] != 3 * product.inner:
        return None
    return weight, bias
