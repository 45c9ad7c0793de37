"""Overhead: what the stream costs beside the engine, stage by stage, in processor time of the loop's own thread.

Processor time, because another program's load must not count; least of the rounds, because a cache that another program
emptied must not either. A 720p frame, 1,000 labels of 768 numbers, an engine that costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.bank import BankHeader, Label, LabelBank
from overflight.runtime.bundle import Resize
from overflight.runtime.decide import Decider
from overflight.runtime.engines import EngineInfo
from overflight.runtime.follow import Follower, Rules
from overflight.runtime.frame import Frame
from overflight.runtime.gate import Gate
from overflight.runtime.journal import Journal
from overflight.runtime.match import Matcher
from overflight.runtime.observe import Observer
from overflight.runtime.trust import Clerk, Judge

SIDE, WIDTH, LABELS, ROUNDS = 224, 768, 1000, 60


class FreeEngine:
    """An engine that answers at once."""

    info = EngineInfo("onnxruntime-cpu", "fp32", "free", "0", "0" * 64)
    side, width = SIDE, WIDTH

    def __init__(self) -> None:
        self._answer = np.full((1, WIDTH), WIDTH**-0.5, np.float32)

    def embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._answer

    def close(self) -> None:
        pass


def bank() -> LabelBank:
    vectors = np.random.default_rng(0).normal(size=(LABELS, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = tuple(Label(f"label {i}", (f"label {i}",), threshold=0.5) for i in range(LABELS))
    return LabelBank.make(BankHeader(1, "many", "m", "c" * 64, "sigmoid", 4.7, -12.0, labels), vectors)


def least_ms(stage: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        stage()
        times.append(time.thread_time_ns() - began)
    return min(times) / 1e6


@pytest.mark.slow
def test_where_the_time_goes(tmp_path: Path) -> None:
    """Each stage by itself, then the loop's whole share of a frame."""
    many = bank()
    observer = Observer(FreeEngine(), many, Resize(SIDE, "bicubic", "squash"))
    pixels = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), np.uint8)
    frame = Frame(pixels, 0, time.monotonic_ns(), time.time_ns(), order="bgr")
    prepared, embedding = observer.prepare(frame), FreeEngine().embed(pixels)[0]
    judge, clerk, gate = Judge(live=True), Clerk(), Gate(3)
    follower = Follower(Rules(), "flight", 0)
    journal = Journal(tmp_path / "journal.sqlite")
    sight = observer.observe(frame, {})
    matcher, decider = Matcher(many), Decider(many)
    match = matcher.match(embedding)

    def gated() -> None:
        if not gate.skips(prepared):
            gate.judged("x")

    stages: dict[str, Callable[[], object]] = {
        "resize": lambda: observer.prepare(frame),
        "judge the frame": lambda: (clerk.notice(frame), judge.judge(prepared)),
        "hover gate (optional)": gated,
        "match 1,000 labels": lambda: matcher.match(embedding),
        "decide": lambda: decider.decide(match),
        "observe (match, decide, record)": lambda: observer.observe(frame, {}),
        "follow": lambda: follower.follow(sight.observation, sight.verdict),
        "hand to the journal": lambda: journal.append(sight.observation, sight.embedding),
    }
    taken = {name: least_ms(stage) for name, stage in stages.items()}
    journal.close()
    print()
    for name, cost_ms in taken.items():
        print(f"{name:32} {cost_ms:6.3f} ms")
    whole = sum(taken[name] for name in taken if name not in {"match 1,000 labels", "decide", "hover gate (optional)"})
    print(f"{'the loop beside the engine':32} {whole:6.3f} ms")
    assert taken["match 1,000 labels"] < 1.0  # the goal is 0.2 ms on a machine of its own
    assert whole < 20
