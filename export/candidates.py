"""Candidates: every engine that a bundle's graphs could become, and why some cannot be here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from overflight.export.plan import LEVEL
from overflight.runtime.engines import REFERENCE, TARGETS, device_name, versions
from overflight.runtime.engines.record import engine_title
from overflight.runtime.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overflight.runtime.bundle import Bundle
    from overflight.runtime.engines import Precision, Target

Form = Literal["as-is", "static", "dynamic", "compiled", "unsigned", "plan", "parted plan"]
FP16, INT8 = "image.fp16.onnx", "image.int8.onnx"
MAX_BATCH = 8  # tiles of one frame; a larger profile would cost the single frame its speed


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine to try: the bundle's ``graph``, run ``as-is`` or turned into another ``form`` first."""

    target: Target
    precision: Precision
    variant: str
    graph: str
    form: Form
    max_batch: int = 1
    level: int | None = None
    profiles: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """The engine's name for people."""
        return engine_title(self.target, self.precision, self.variant)

    @property
    def file(self) -> str | None:
        """The name of the engine's own file, or None when the bundle's graph itself runs."""
        match self.form:
            case "as-is":
                return None
            case "static" | "dynamic":
                return "image.onnx"
            case "compiled" | "unsigned":
                return "image.blob"
            case "plan" | "parted plan":
                return "image.plan"


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """How TensorRT's plans are built: the largest batch of each optimisation profile, and the builder's level."""

    profiles: tuple[int, ...] = (MAX_BATCH,)
    level: int = LEVEL


DEFAULT_PLANS = PlanChoice()


@dataclass(frozen=True, slots=True)
class Absent:
    """An engine that cannot be tried here, and why."""

    title: str
    reason: str


def find_candidates(
    bundle: Bundle, wanted: Target | Literal["auto"], plans: PlanChoice = DEFAULT_PLANS
) -> tuple[list[Candidate], list[Absent]]:
    """Return what can be tried on this machine for one target or all, and what cannot.

    Raises MissingError when the one target that was asked for is not there.
    """
    found: list[Candidate] = []
    absent: list[Absent] = []
    for target in TARGETS if wanted == "auto" else (wanted,):
        try:
            versions(target), device_name(target)
            if target == "onnxruntime-cuda":
                _check_provider()
        except MissingError as error:
            if wanted != "auto":
                raise
            absent.append(Absent(target, str(error)))
            continue
        for one in _of_target(target, plans):
            if one.graph in bundle.manifest.files:
                found.append(one)
            else:
                absent.append(Absent(one.title, f"the bundle holds no {one.graph}; run: overflight calibrate"))
    return found, absent


def _check_provider() -> None:
    """Raise MissingError unless ONNX Runtime's CUDA provider, which is always listed, really loads here."""
    from overflight.runtime.doctor import probe
    from overflight.runtime.engines.ort_cuda import PROVIDER, advice

    loaded = probe.providers()
    if loaded.error or not loaded.answer.get(PROVIDER):
        reason = loaded.error or "its CUDA or cuDNN libraries are not found, or are of another version"
        raise MissingError(f"{PROVIDER} is listed but does not load: {reason}; {advice()}")


def _of_target(target: Target, plans: PlanChoice) -> Iterator[Candidate]:
    match target:
        case "onnxruntime-cpu":
            yield Candidate(target, "fp32", "", REFERENCE, "as-is")
            yield Candidate(target, "int8", "dynamic", INT8, "dynamic")
            yield Candidate(target, "int8", "static", INT8, "static")
        case "openvino-cpu":
            from overflight.runtime.engines.openvino import native_islands

            yield Candidate(target, "fp32", "", REFERENCE, "as-is")
            # A float tower stays a graph: compiled it would lie on the disk a second time, at its full size.
            yield Candidate(target, "int8", "", INT8, "compiled")
            yield Candidate(target, "int8", "unsigned", INT8, "unsigned")
            if "bf16" in native_islands():
                yield Candidate(target, "fp16", "bf16", REFERENCE, "as-is")
                yield Candidate(target, "int8", "bf16", INT8, "compiled")
        case "onnxruntime-cuda":
            yield Candidate(target, "fp32", "", REFERENCE, "as-is", MAX_BATCH)
            yield Candidate(target, "fp16", "", FP16, "as-is", MAX_BATCH)
        case "tensorrt":
            largest = max(plans.profiles)
            yield Candidate(target, "fp16", "", FP16, "plan", largest, plans.level, plans.profiles)
            yield Candidate(target, "int8", "", INT8, "parted plan", largest, plans.level, plans.profiles)
