"""What a builder made of a graph: its layers, from an engine inspector's JSON or from a builder's verbose log."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from overflight.runtime.engines.record import LayerCounts

if TYPE_CHECKING:
    from collections.abc import Iterable

_FUSED = re.compile(r"mha|fused_?attention|flash|myelin.*attention", re.IGNORECASE)
# Pointwise kernels ("kgen") read and write int8 too, at the edges of a product.
_PRODUCT = re.compile(r"gemm|fc|matmul|matrix|convolution|fusion", re.IGNORECASE)
_WIDE = frozenset({"half", "float", "bfloat16"})
_TYPES = {"int8": "int8", "half": "half", "fp16": "half", "bf16": "bfloat16", "float": "float", "fp32": "float"}
_LINE = re.compile(r"^\s*Name: (?P<name>[^,]*), LayerType: (?P<kind>[^,]*),(?P<rest>.*)$")
_PARTS = ("Inputs", "Constants", "Outputs")


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an engine: its name, its kind, and the types of the tensors that it reads, holds and writes."""

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def is_fused_attention(self) -> bool:
        """Whether a whole attention runs in this layer."""
        return bool(_FUSED.search(self.name))

    @property
    def is_int8_product(self) -> bool:
        """Whether it multiplies int8 by a constant int8 matrix. One that reads its weight in half does not."""
        return "int8" in self.inputs and "int8" in self.constants and bool(_PRODUCT.search(f"{self.kind} {self.name}"))

    @property
    def dequantises_weight(self) -> bool:
        """Whether it turns constant int8 levels into floats in every frame: what reads them is no int8 product."""
        return not self.inputs and "int8" in self.constants and bool(_WIDE & set(self.outputs))


def count(layers: Iterable[Layer]) -> LayerCounts:
    """Count what decides how fast an engine is."""
    found = list(layers)
    return LayerCounts(
        layers=len(found),
        fused_attention=sum(layer.is_fused_attention for layer in found),
        int8_products=sum(layer.is_int8_product for layer in found),
        dequantised_weights=sum(layer.dequantises_weight for layer in found),
        reformats=sum("reformat" in f"{layer.name} {layer.kind}".lower() for layer in found),
    )


def layers_of_engine(trt: Any, engine: Any) -> list[Layer]:
    """Read a built engine's layers on its device. Versions name the same things differently."""
    inspector = engine.create_engine_inspector()
    content = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [_from_json(layer) for layer in content.get("Layers", [])]


def layers_of_log(messages: Iterable[str]) -> list[Layer]:
    """Read the list of layers that a builder logs, verbosely, at its end: the only list where no GPU is."""
    lines = (line for message in messages if "LayerType:" in message for line in message.splitlines())
    return [_from_line(found) for line in lines if (found := _LINE.match(line))]


def explain(counts: LayerCounts, depth: int) -> str:
    """Write the counts for people, and what is wrong with them in a tower of ``depth`` blocks.

    An engine with two optimisation profiles may list the layers of both.
    """
    depth = depth if counts.fused_attention <= depth else 2 * depth
    text = (
        f"{counts.layers} layers, {counts.fused_attention} of {depth} attentions fused, "
        f"{counts.int8_products} int8 products, {counts.reformats} reformats"
    )
    if counts.dequantised_weights:
        text += f"; {counts.dequantised_weights} weights are dequantised in every frame"
    if counts.fused_attention < depth:
        text += f"; {depth - counts.fused_attention} attentions run unfused, which is slower"
    return text


def _from_json(layer: str | dict[str, Any]) -> Layer:
    if isinstance(layer, str):  # profiling verbosity below DETAILED gives names only
        return Layer(layer, "")
    kinds = (tuple(_type(json.dumps(tensor)) for tensor in layer.get(part) or ()) for part in _PARTS)
    return Layer(str(layer.get("Name", "")), str(layer.get("LayerType", "")), *kinds)


def _from_line(found: re.Match[str]) -> Layer:
    # Tensors hold brackets themselves, so a part ends where the next one's name begins.
    pieces = re.split(r"\b(Inputs|Constants|Outputs|TacticName): ", found["rest"])
    parts = dict(zip(pieces[1::2], pieces[2::2], strict=False))
    kinds = (tuple(map(_type, _tensors(parts.get(part, "")))) for part in _PARTS)
    return Layer(found["name"].strip(), found["kind"].strip(), *kinds)


def _tensors(text: str) -> list[str]:
    return re.findall(r"\{[^}]*\}", text)


def _type(tensor: str) -> str:
    """Find the type in "Datatype: Int8", or in "Format/Datatype": "Row major linear INT8 format"."""
    stated = re.search(r"Data_?type\"?: \"?([^,\"}]*)", tensor, re.IGNORECASE)
    text = (stated[1] if stated else tensor).lower()
    return next((kind for word, kind in _TYPES.items() if word in text), text.strip())
