"""The graph of an image tower, opened for rewriting: its nodes and constants by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.engines.ort import EXACT_PRODUCTS, load_library
from overflight.runtime.errors import BundleError, UsageError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Product:
    """One MatMul with a constant right side: ``name``, what it reads, the name of its weight ``[inner, outer]``."""

    name: str
    reads: str
    weight: str
    inner: int
    outer: int

    @property
    def block(self) -> str | None:
        """The transformer block it belongs to (``image.block3``); None for the patch product and the head."""
        first, _, rest = self.name.partition(".")
        block = rest.partition(".")[0]
        return f"{first}.{block}" if block.startswith("block") else None


class TowerGraph:
    """A graph as the exporter authored it (``export/author.py`` fixes the names)."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: dict[str, Any] = {node.name: node for node in model.graph.node}
        self.constants: dict[str, Any] = {constant.name: constant for constant in model.graph.initializer}

    @classmethod
    def open(cls, path: Path) -> TowerGraph:
        """Read a graph with its weights. Raises BundleError for another kind of file."""
        onnx = load_onnx()
        try:
            return cls(onnx.load(str(path)))
        except Exception as error:  # protobuf's DecodeError has no importable home of its own
            raise BundleError(f"{path}: not an ONNX graph ({error}); export the bundle again") from error

    def check_quantisable(self) -> None:
        """Raise UsageError for a tower of convolutions: only matrix products are quantised."""
        if any(node.op_type == "Conv" for node in self.nodes.values()):
            raise UsageError(
                "the image tower is made of convolutions (CLIP's ModifiedResNet), and calibration quantises matrix "
                "products only; use the bundle as it is, in fp32"
            )

    def copy(self) -> TowerGraph:
        """Return an independent copy."""
        model = load_onnx().ModelProto()
        model.CopyFrom(self.model)
        return TowerGraph(model)

    def array(self, name: str) -> NDArray[Any]:
        """Return a constant."""
        return np.asarray(load_onnx().numpy_helper.to_array(self.constants[name]))

    def put(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant, or replace the one of this name; returns the name."""
        tensor = load_onnx().numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        if name in self.constants:
            self.constants[name].CopyFrom(tensor)
        else:
            self.model.graph.initializer.append(tensor)
            self.constants[name] = self.model.graph.initializer[-1]
        return name

    def drop(self, names: Iterable[str]) -> None:
        """Remove constants that nothing reads any more."""
        gone = set(names) - {name for node in self.model.graph.node for name in node.input}
        kept = [constant for constant in self.model.graph.initializer if constant.name not in gone]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)
        self.constants = {constant.name: constant for constant in self.model.graph.initializer}

    def replace_nodes(self, nodes: Sequence[Any]) -> None:
        """Replace the list of nodes, which must be in topological order."""
        kept = list(nodes)
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        self.nodes = {node.name: node for node in self.model.graph.node}

    def products(self) -> list[Product]:
        """Return every product with a constant matrix, in the order of the graph."""
        found = []
        for node in self.model.graph.node:
            constant = self.constants.get(node.input[1]) if node.op_type == "MatMul" else None
            if constant is not None and len(constant.dims) == 2:
                inner, outer = constant.dims
                found.append(Product(node.name, node.input[0], constant.name, int(inner), int(outer)))
        return found

    def watched(self, names: Sequence[str]) -> bytes:
        """Return the graph as bytes with these tensors as further outputs."""
        outputs = self.model.graph.output
        own = len(outputs)
        known = {output.name for output in outputs}
        outputs.extend(load_onnx().ValueInfoProto(name=name) for name in names if name not in known)
        try:
            return self.encoded()
        finally:
            del outputs[own:]

    def encoded(self) -> bytes:
        """Return the graph as the bytes of its file."""
        return bytes(self.model.SerializeToString())


def load_onnx() -> Any:
    """Import onnx. Raises MissingError when it is not installed."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise missing_extra("onnx", "export") from error
    return onnx


def open_session(model: bytes) -> Any:
    """Open a graph on ONNX Runtime's CPU provider. Raises MissingError when it is not installed."""
    onnxruntime = load_library()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(*EXACT_PRODUCTS)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
