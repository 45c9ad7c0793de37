"""Predicted latency: the roofline and its assumptions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from overflight.cli import COMMANDS
from overflight.jetson.board import modules
from overflight.jetson.predict import COMPUTE_SHARES, LAUNCH_MS, TOWERS, Architecture, predict, table

README = Path(__file__).parents[2] / "jetson/README.md"


def test_the_roofline_by_hand() -> None:
    """B/16-256 on an Orin Nano Super in fp16: 46.8 GFLOP against 16.7 TFLOP/s."""
    nano = next(module for module in modules() if module.key == "orin-nano-8gb")
    guess = predict(nano, nano.modes[-1], "fp16", 46_800_000_000, 370_000_000)
    assert guess.floor_ms == pytest.approx(46.8e9 / (8 * 1.02e9 * 2048) * 1e3)
    assert guess.slow_ms == pytest.approx(guess.floor_ms / COMPUTE_SHARES[0] + LAUNCH_MS)
    assert guess.fast_ms == pytest.approx(guess.floor_ms / COMPUTE_SHARES[1] + LAUNCH_MS)


def test_the_published_figures_are_inside_the_range() -> None:
    """NanoOWL on an AGX Orin 64 GB, fp16, as NVIDIA states it: OWL-ViT B/32 at 95 and B/16 at 25 frames a second.

    Both towers take 768 x 768 pixels: 576 and 2,304 patches of width 768 in twelve blocks.
    """
    agx = next(module for module in modules() if module.key == "agx-orin-64gb")
    for patch, published_fps in ((32, 95), (16, 25)):
        tower = Architecture("OWL-ViT", 768, patch, 768, 12, 3072)
        guess = predict(agx, agx.modes[-1], "fp16", tower.flops, tower.weight_bytes)
        share = guess.floor_ms / (1000 / published_fps)
        assert COMPUTE_SHARES[0] * 0.95 <= share <= COMPUTE_SHARES[1] * 1.05, share


def test_a_tower_of_weights_only_is_bound_by_bandwidth() -> None:
    """Where hardly anything is computed, the constants must still be read."""
    nano = next(module for module in modules() if module.key == "orin-nano-8gb")
    assert predict(nano, nano.modes[-1], "int8", 1, 4 * 102_000_000).floor_ms == pytest.approx(1.0)


def test_more_board_is_never_slower() -> None:
    """In the table's order every module of a kind is at least as fast as the one before."""
    floors = [predict(module, module.modes[-1], "int8", 10**11, 10**9).floor_ms for module in modules()]
    assert floors == sorted(floors, reverse=True)


def test_the_architectures_are_the_published_ones() -> None:
    """SigLIP B/16-256: 93 million parameters and 46 GFLOP in its image tower; L/16-256: 316 million."""
    base, large, _ = TOWERS
    assert base.weight_bytes / 4e6 == pytest.approx(93, rel=0.02)
    assert base.flops / 1e9 == pytest.approx(46.2, rel=0.01)
    assert large.weight_bytes / 4e6 == pytest.approx(316, rel=0.02)


def test_the_readmes_table_is_computed() -> None:
    """Nobody types these figures: python -m overflight.jetson.predict prints them."""
    assert table() in README.read_text(encoding="utf-8")


def test_the_readme_names_commands_that_exist() -> None:
    """Every ``overflight NAME`` that is shown to a newcomer can be called."""
    named = set(re.findall(r"(?:^|`|sudo )overflight ([a-z]+)", README.read_text(encoding="utf-8"), re.MULTILINE))
    assert {"doctor", "service", "run", "build", "labels"} <= named
    assert named <= {*COMMANDS, "build"}
