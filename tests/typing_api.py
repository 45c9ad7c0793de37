"""The public API as users annotate it: never run, but checked by mypy --strict with everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

from overflight.runtime import Frame, LabelBank, Observation, Overflight, OverflightError
from overflight.runtime.bundle import Bundle
from overflight.runtime.records import Score


def classify(pixels: NDArray[np.uint8]) -> str | None:
    """Load with every kind of argument, classify, embed and swap labels."""
    with Overflight.load() as overflight:
        assert_type(overflight, Overflight)
        observation = overflight.classify(pixels)
        assert_type(observation, Observation)
        assert_type(observation.label, "str | None")
        assert_type(observation.scores, tuple[Score, ...])
        assert_type(observation.dropped, dict[str, int])
        assert_type(overflight.embed([pixels, Frame(pixels, 0, 0)]), NDArray[np.float32])
        overflight.use(Path("labels.safetensors"))
        overflight.use(LabelBank.load(Path("labels.safetensors")))
        return observation.label


def follow(source: str) -> list[int]:
    """Follow a source with an engine of one's own choice."""
    bundle = Bundle.open("bundle")
    with Overflight.load(bundle, "labels.safetensors", threads=2, target="openvino-cpu", precision="int8") as flight:
        return [observation.age_ns for observation in flight.stream(source)]


def failing() -> str:
    """Every failure is one type, with a message and an exit code."""
    try:
        Overflight.load("nowhere")
    except OverflightError as error:
        assert_type(error.exit_code, int)
        return str(error)
    Overflight.load(bundel="x")  # type: ignore[call-arg]
    return ""
