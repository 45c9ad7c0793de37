"""What an image tower weighs and works, read off its graph without any ONNX library: shapes only, no weights."""

from __future__ import annotations

import math
import mmap
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overflight.runtime.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.dims, .data_type, .name.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _TYPE, _NAME = 1, 2, 8
_POSITIONS = "image.positions.bias"
_BODY = re.compile(r"^image\.(patches|block\d+\..*)\.weight$")
# TensorProto.DataType -> bytes per number, of the types that hold weights.
_WIDTHS = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 10: 2, 11: 8, 16: 2}


@dataclass(frozen=True)
class Tower:
    """The size of an image tower: ``tokens`` of ``width`` numbers go through ``products`` of ``[K, N]`` each.

    ``weight_bytes`` is what its constants take as they are stored, ``inner`` the widest product (the MLP's).
    """

    weight_bytes: int
    tokens: int
    width: int
    inner: int
    products: tuple[tuple[int, int], ...]

    @property
    def depth(self) -> int:
        """How many transformer blocks: each has one product from ``inner`` back to ``width``."""
        return sum(1 for k, n in self.products if k == self.inner and n == self.width)

    @property
    def heads(self) -> int:
        """How many attention heads: 64 wide as in every SigLIP but So400m, which has 16."""
        return self.width // 64 if self.width % 64 == 0 and self.width != 1152 else 16

    @property
    def flops(self) -> int:
        """Floating-point operations per frame: two per weight and token, and the two products of each attention."""
        linear = 2 * self.tokens * sum(k * n for k, n in self.products)
        return linear + self.depth * 4 * self.tokens**2 * self.width

    @property
    def activation_bytes(self) -> int:
        """The most that lives at once inside a block, per frame in float32: state, q/k/v and scores, or the MLP."""
        attention = self.tokens * self.width * 5 + self.heads * self.tokens**2 * 2
        mlp = self.tokens * (self.width * 2 + self.inner * 2)
        return 4 * max(attention, mlp)


def read_tower(graph: Path) -> Tower:
    """Read an exported image tower's shapes. Raises BundleError for what is not one."""
    try:
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            tensors = list(_tensors(view))
    except (OSError, ValueError, IndexError) as error:
        raise BundleError(f"{graph}: not an ONNX graph ({error}); export the checkpoint again") from error
    shapes = {name: dims for name, dims, _ in tensors}
    positions = shapes.get(_POSITIONS, ())
    if len(positions) < 2:
        raise BundleError(f"{graph}: holds no {_POSITIONS}; not an image tower of ours, export the checkpoint again")
    # The head works on one pooled state only; its products weigh, but do not work.
    products = tuple((dims[0], dims[1]) for name, dims, _ in tensors if len(dims) == 2 and _BODY.match(name))
    return Tower(
        weight_bytes=sum(math.prod(dims) * _WIDTHS.get(kind, 4) for _, dims, kind in tensors),
        tokens=positions[-2],
        width=positions[-1],
        inner=max((n for _, n in products), default=positions[-1]),
        products=products,
    )


def _tensors(view: mmap.mmap) -> Iterator[tuple[str, tuple[int, ...], int]]:
    for number, start, end in _fields(view, 0, len(view)):
        if number != _GRAPH:
            continue
        for inner, first, last in _fields(view, start, end):
            if inner == _INITIALIZER:
                yield _tensor(view, first, last)


def _tensor(view: mmap.mmap, start: int, end: int) -> tuple[str, tuple[int, ...], int]:
    dims: list[int] = []
    name, kind = "", 0
    for number, first, last in _fields(view, start, end):
        if number == _NAME:
            name = view[first:last].decode("utf-8", "replace")
        elif number == _TYPE:
            kind = _varint(view, first)[0]
        elif number == _DIMS:
            dims += _varints(view, first, last)
    return name, tuple(dims), kind


def _fields(view: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Walk the fields of a protobuf message: number, and where its content begins and ends."""
    while at < end:
        key, at = _varint(view, at)
        match key & 7:
            case 0:  # varint
                _, after = _varint(view, at)
            case 1:  # 64 bit
                after = at + 8
            case 2:  # bytes
                length, at = _varint(view, at)
                after = at + length
            case 5:  # 32 bit
                after = at + 4
            case wire:
                raise ValueError(f"wire type {wire} at byte {at}")
        if after > end:
            raise ValueError(f"a field ends beyond byte {end}")
        yield key >> 3, at, after
        at = after


def _varints(view: mmap.mmap, at: int, end: int) -> Iterator[int]:
    while at < end:
        value, at = _varint(view, at)
        yield value


def _varint(view: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"no number at byte {at}")
