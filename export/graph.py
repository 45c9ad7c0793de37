"""An ONNX graph under construction, and the file it becomes: weights are read and written one at a time."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight import __version__
from overflight.runtime.errors import missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from overflight.export.tower import Linear, Weight

OPSET = 20
_IR_VERSION = 9  # the format that came with opset 20
EXTERNAL_ABOVE_BYTES = 1_500_000_000  # protobuf ends at 2 GiB
_SMALL_BYTES = 1024  # shapes and scalars stay in the graph, where shape inference reads them
_PAGE_BYTES = 4096  # external weights start on a page, so that engines can map them


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


# Protobuf would hold all weights, twice, so the wire form around them is written by hand: a field is a tag (its number,
# and 2 for "a length and that many bytes follow"), then its content. https://protobuf.dev/programming-guides/encoding
_GRAPH = _varint(7 << 3 | 2)  # ModelProto.graph
_INITIALIZER = _varint(5 << 3 | 2)  # GraphProto.initializer
_RAW_DATA = _varint(9 << 3 | 2)  # TensorProto.raw_data


class Graph:
    """Nodes and constants by name; a node's first output bears the node's name."""

    def __init__(self, name: str) -> None:
        try:
            import onnx
        except ImportError as error:
            raise missing_extra("onnx", "export") from error
        self._onnx = onnx
        self._proto = onnx.GraphProto(name=name)
        self._constants: dict[str, Weight] = {}

    @property
    def name(self) -> str:
        """The graph's name: its tower."""
        return str(self._proto.name)

    def take(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare an input."""
        self._proto.input.append(self._value(name, dtype, shape))
        return name

    def give(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare an output."""
        self._proto.output.append(self._value(name, dtype, shape))

    def node(self, name: str, operator: str, *inputs: str, parts: Sequence[str] = (), **attributes: Any) -> str:
        """Append a node; with ``parts``, its outputs are ``name.part``. Returns the name."""
        outputs = [f"{name}.{part}" for part in parts] or [name]
        self._proto.node.append(self._onnx.helper.make_node(operator, list(inputs), outputs, name, **attributes))
        return name

    def weight(self, name: str, weight: Weight) -> str:
        """Keep a float32 constant that is read when the file is written."""
        assert name not in self._constants, name
        self._constants[name] = weight
        return name

    def integers(self, *values: int) -> str:
        """Keep int64 numbers (shapes, axes); equal ones are kept once."""
        name = f"{self.name}.integers.{'_'.join(map(str, values))}"
        return self._tiny(name, np.asarray(values, dtype=np.int64))

    def scalar(self, name: str, value: float | np.generic) -> str:
        """Keep one number; Python's float becomes float32."""
        return self._tiny(name, np.asarray(value, dtype=getattr(value, "dtype", np.float32)))

    def save(self, path: Path, report: Callable[[float], None] = lambda share: None) -> None:
        """Write the graph; above 1.5 GB its weights are in ``path``.data next to it.

        Peak memory is one weight. ``report`` receives the progress, 0 to 1.
        """
        total = sum(_size_bytes(weight) for weight in self._constants.values())
        aside = path.with_name(f"{path.name}.data") if total > EXTERNAL_ABOVE_BYTES else None
        heads = self._heads(aside)
        with path.open("wb") as file, aside.open("wb") if aside else nullcontext() as data:
            file.write(self._opening(heads))
            done = 0
            for (head, inline), weight in zip(heads, self._constants.values(), strict=True):
                file.write(_INITIALIZER + _varint(len(head) + inline) + head)
                if inline or data is None:
                    file.write(_bytes(weight))
                else:
                    data.seek(_next_page(data.tell()))
                    data.write(_bytes(weight))
                done += _size_bytes(weight)
                report(done / total)

    def _tiny(self, name: str, array: np.ndarray[Any, Any]) -> str:
        if not any(known.name == name for known in self._proto.initializer):
            self._proto.initializer.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _value(self, name: str, dtype: str, shape: Sequence[int | str]) -> Any:
        element = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._onnx.helper.make_tensor_value_info(name, element, list(shape))

    def _heads(self, aside: Path | None) -> list[tuple[bytes, int]]:
        """Return each weight's TensorProto up to its bytes, and how many of them follow in the graph's own file."""
        onnx, position = self._onnx, 0
        heads = []
        for name, weight in self._constants.items():
            tensor = onnx.TensorProto(name=name, dims=weight.shape, data_type=onnx.TensorProto.FLOAT)
            size = _size_bytes(weight)
            if aside is not None and size > _SMALL_BYTES:
                position = _next_page(position)
                _locate(onnx, tensor, aside.name, position, size)
                position += size
                heads.append((tensor.SerializeToString(), 0))
            else:
                heads.append((tensor.SerializeToString() + _RAW_DATA + _varint(size), size))
        return heads

    def _opening(self, heads: Sequence[tuple[bytes, int]]) -> bytes:
        """Return the file's start: the model, and the graph up to its weights."""
        onnx = self._onnx
        model = onnx.ModelProto(ir_version=_IR_VERSION, producer_name="overflight", producer_version=__version__)
        model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
        rest = self._proto.SerializeToString()
        entries = (len(head) + inline for head, inline in heads)
        length = len(rest) + sum(len(_INITIALIZER) + len(_varint(entry)) + entry for entry in entries)
        return bytes(model.SerializeToString() + _GRAPH + _varint(length) + rest)


def linear(graph: Graph, name: str, x: str, product: Linear) -> str:
    """Author x · weight + bias."""
    x = graph.node(name, "MatMul", x, graph.weight(f"{name}.weight", product.weight))
    if product.bias is None:
        return x
    return graph.node(f"{name}.add", "Add", x, graph.weight(f"{name}.bias", product.bias))


def finish(graph: Graph, x: str, embedding: int) -> None:
    """Author the unit vector of what was pooled, as the graph's output."""
    length = graph.node(f"{graph.name}.length", "ReduceL2", x, graph.integers(-1), keepdims=1)
    graph.node("embeddings", "Div", x, length)
    graph.give("embeddings", "float32", ["N", embedding])


def _size_bytes(weight: Weight) -> int:
    return 4 * math.prod(weight.shape)


def _bytes(weight: Weight) -> memoryview:
    array = np.ascontiguousarray(weight.read(), dtype="<f4")
    assert array.shape == weight.shape, (array.shape, weight.shape)
    return array.reshape(-1).view(np.uint8).data


def _next_page(position: int) -> int:
    return -(-position // _PAGE_BYTES) * _PAGE_BYTES


def _locate(onnx: Any, tensor: Any, file: str, offset: int, length: int) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
