"""The recipe: every decision of a calibration, from which the same graphs can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import BundleError, UsageError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SCHEMA = 1
RECIPE = "recipe.json"
SMOOTHING = "smoothing.safetensors"


class ProductRecipe(msgspec.Struct, frozen=True):
    """How one product is quantised, and the row of the sensitivity table that led to it.

    ``error`` is the relative output error on the tuning frames; ``loss`` is 1 - mean cosine of the tower's embeddings
    when only this product's block is quantised. A product with ``kept`` set stays in float; that is why.
    """

    name: str
    scale: float
    clip: str
    alpha: float
    error: float
    loss: float | None = None
    kept: str | None = None


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a calibration decided for one tower (``tower`` is the hash of its tensors, as in the manifest).

    ``attention`` holds the scales of the tensors that the attention preset quantises besides. ``full`` names the nodes
    that the fp16 graph keeps in fp32 because of their range; ``extremes`` is the largest magnitude they were seen with.
    """

    schema: int
    tower: str
    products: tuple[ProductRecipe, ...]
    attention: dict[str, float]
    full: tuple[str, ...]
    extremes: dict[str, float]

    def quantised(self) -> list[ProductRecipe]:
        """Return the products that become int8."""
        return [product for product in self.products if product.kept is None]


def save_recipe(folder: Path, recipe: Recipe, smoothing: dict[str, NDArray[np.float32]]) -> None:
    """Write a recipe with its smoothing factors."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SMOOTHING, save(smoothing))
    write_atomically(folder / RECIPE, msgspec.json.format(msgspec.json.encode(recipe), indent=1))


def load_recipe(folder: Path) -> tuple[Recipe, dict[str, NDArray[np.float32]]]:
    """Read a recipe with its smoothing factors. Raises UsageError where none is, BundleError for a torn one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        recipe = decode_json((folder / RECIPE).read_bytes(), Recipe)
        smoothing = load((folder / SMOOTHING).read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no recipe here; make one with: overflight calibrate BUNDLE SOURCE") from error
    except (msgspec.DecodeError, SafetensorError) as error:
        raise BundleError(f"{folder}: not a recipe ({error}); calibrate again") from error
    if recipe.schema != SCHEMA:
        raise BundleError(f"{folder}: recipe schema {recipe.schema}, expected {SCHEMA}; calibrate again")
    return recipe, {name: factors.astype(np.float32) for name, factors in smoothing.items()}
