"""The steps of an installation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from overflight.jetson.install_steps import Steps

if TYPE_CHECKING:
    from pathlib import Path


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half-written file next to a unit would stay after the service is removed."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Steps().write(tmp_path / "etc" / "flight.toml", "source = 1\n", 0o600)
    assert list((tmp_path / "etc").iterdir()) == []
