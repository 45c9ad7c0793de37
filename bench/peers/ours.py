"""Ours: an engine of a bundle, as a flight runs it, with the peaks of its library."""

from __future__ import annotations

from typing import Any

from overflight.bench.peak import peak_calls
from overflight.bench.peers.serve import LoadedPeer, PeerUnavailable
from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import PRECISIONS, REFERENCE, TARGETS, Engine, open_reference
from overflight.runtime.engines.openvino import OpenVinoEngine
from overflight.runtime.errors import MissingError
from overflight.runtime.store import choose


def load(job: dict[str, Any]) -> LoadedPeer:
    """Open the engine that the variant names.

    "fp32" is the reference, "default" what would fly here, and "TARGET-PRECISION" (openvino-cpu-int8) one that was
    built. One that failed its gate is timed too, and the note says so.
    """
    bundle = Bundle.open(job["bundle"])
    engine, graph, note = open_variant(bundle, job["variant"], job["threads"])
    library = "openvino" if engine.info.target == "openvino-cpu" else "onnxruntime"
    name = f"{engine.info.target} {engine.info.precision} on {engine.info.provider}"
    on_cpu = engine.info.target in ("onnxruntime-cpu", "openvino-cpu")
    return LoadedPeer(
        embed=engine.embed,
        versions={engine.info.target: engine.info.version},
        graph=graph,
        note=f"{name}; {note}" if note else name,
        others={f"peak {kind}": work for kind, work in peak_calls(library, job["threads"]).items()} if on_cpu else {},  # type: ignore[arg-type]
    )


def open_variant(bundle: Bundle, variant: str, threads: int) -> tuple[Engine, str, str]:
    """Return the engine, the ONNX file whose work is counted, and what must be said about the choice."""
    if variant == "fp32":
        return open_reference(bundle, threads=threads), str(bundle.file(REFERENCE)), ""
    if variant == "default":
        chosen = choose(bundle, threads=threads)
    else:
        target, _, precision = variant.rpartition("-")
        if target not in TARGETS or precision not in PRECISIONS:
            raise PeerUnavailable(f"{variant}: expected fp32, default or TARGET-PRECISION, such as openvino-cpu-int8")
        try:
            chosen = choose(bundle, target, precision, forced=True, threads=threads)
        except MissingError:
            return _unbuilt(bundle, target, precision, threads)
    graph = chosen.record.graph if chosen.record is not None else REFERENCE
    return chosen.engine, str(bundle.file(graph)), chosen.note


def _unbuilt(bundle: Bundle, target: str, precision: str, threads: int) -> tuple[Engine, str, str]:
    """OpenVINO runs the bundle's graphs as they are: what was not built can be timed, with its cosine."""
    graph = REFERENCE if precision == "fp32" else f"image.{precision}.onnx"
    if target != "openvino-cpu" or graph not in bundle.manifest.files:
        raise PeerUnavailable(
            f"no {target} {precision} engine was built here; run: overflight build {bundle.directory}"
        )
    engine = OpenVinoEngine(bundle.file(graph), bundle.manifest.files[graph], precision, threads=threads)  # type: ignore[arg-type]
    return engine, str(bundle.file(graph)), f"{graph} as it is, not built here"
