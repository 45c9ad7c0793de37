"""Default decisions: what a model brings for banks that name no threshold, and that they hold for the shipped one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from overflight.export.default_decisions import (
    DECISIONS,
    SCHEMA,
    BackgroundVector,
    DefaultDecisions,
    read_decisions,
    ship_decisions,
)
from overflight.export.labels import compile_labels
from overflight.runtime import LabelBank, Overflight
from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.errors import UsageError

GIVEN = DefaultDecisions(SCHEMA, "c" * 64, 0.25, (BackgroundVector("no view", (0.6, 0.8), 5.0, 1.0),), {})


def test_they_are_copied_for_their_own_weights_only(tmp_path: Path) -> None:
    """Fitted numbers mean nothing for another model."""
    (tmp_path / "bundle").mkdir()
    ship_decisions(tmp_path, tmp_path / "bundle", "c" * 64)
    assert list((tmp_path / "bundle").iterdir()) == []
    (tmp_path / DECISIONS).write_bytes(msgspec.json.encode(GIVEN))
    ship_decisions(tmp_path, tmp_path / "bundle", "c" * 64)
    assert (tmp_path / "bundle" / DECISIONS).is_file()
    with pytest.raises(UsageError, match="fitted for tower cccccccccccc, not dddddddddddd"):
        ship_decisions(tmp_path, tmp_path / "bundle", "d" * 64)
    (tmp_path / DECISIONS).write_text("{}")
    with pytest.raises(UsageError, match="not default decisions"):
        ship_decisions(tmp_path, tmp_path / "bundle", "c" * 64)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return the default model's bundle."""
    if not (default_bundle() / "manifest.json").is_file():
        pytest.skip("no default bundle; run: make bundle")
    return Bundle.open(default_bundle())


def test_every_bank_gets_threshold_and_background(bundle: Bundle) -> None:
    """Also one that is made from a list of texts; not on request, and never twice the same name."""
    decisions = read_decisions(bundle)
    assert decisions is not None
    bank = compile_labels(["river", "road"], bundle)
    assert bank.header.threshold == decisions.threshold
    assert [label.text for label in bank.header.labels if label.background] == ["no view"]
    bare = compile_labels(["river", "road"], bundle, defaults=False)
    assert (bare.header.threshold, len(bare)) == (None, 2)
    clash = compile_labels(["no view", "road"], bundle)
    assert [label.text for label in clash.header.labels] == ["no view", "road", "no view (background)"]


def pictures() -> dict[str, np.ndarray]:
    random = np.random.default_rng(11)
    bars = np.repeat(np.array([[191, 191, 191], [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191]]), 128, axis=0)
    return {
        "noise": random.integers(0, 256, (480, 640, 3), np.uint8),
        "grey noise": np.repeat(random.integers(0, 256, (480, 640, 1), np.uint8), 3, axis=2),
        "grey": np.full((480, 640, 3), 128, np.uint8),
        "blue": np.full((480, 640, 3), (20, 40, 200), np.uint8),
        "bars": np.broadcast_to(bars.astype(np.uint8), (480, 640, 3)).copy(),
    }


@pytest.mark.parametrize("name", ["aerial", "demo", "list"])
def test_noise_and_test_cards_are_unknown(bundle: Bundle, name: str) -> None:
    """With both shipped banks, and one that a user makes in a minute."""
    bank = (
        compile_labels(["grass", "port", "forest", "beach", "fire", "flooded road"], bundle)
        if name == "list"
        else LabelBank.load(bundle.file(f"labels/{name}.safetensors"))
    )
    with Overflight.load(bundle, bank) as overflight:
        found = {kind: overflight.classify(pixels).label for kind, pixels in pictures().items()}
        assert found == dict.fromkeys(found)
        cards = [seen.label for seen in overflight.stream("test://?frames=5&fps=0&size=640x360")]
    assert cards == [None] * 5
