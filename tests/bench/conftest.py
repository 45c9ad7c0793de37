"""Rows made up for the parts that only read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overflight.bench.host import make_row
from overflight.bench.row import Row
from overflight.runtime.errors import MissingError


@pytest.fixture
def row() -> Callable[..., Row]:
    """Make a row of this machine: ``row("engine", "ours:fp32", [1, 2], run="a", labels=10)``."""

    def make(measure: str, subject: str, samples: list[int], *, run: str = "r", model: str = "m", **more: Any) -> Row:
        fields = {key: more.pop(key) for key in ("figures", "reason", "unit", "floor") if key in more}
        made = make_row(measure, subject, samples, run=run, included="tests", model=model, settings=more, **fields)
        return msgspec.structs.replace(made, figures={"peak_bytes": 1e6, **made.figures})

    return make


@pytest.fixture(autouse=True)
def nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to make a peer's environment: it would fetch gigabytes in the middle of a test run."""

    def refuse(place: Path, python: Path, requirements: tuple[str, ...], peer: str) -> None:
        raise MissingError(f"{peer}: tests install nothing; needs {', '.join(requirements)}")

    monkeypatch.setattr("overflight.bench.environment._make", refuse)
