"""The hot functions of the loop, each timed alone, and a baseline that no change of ours affects."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from overflight.bench.bank import random_bank
from overflight.bench.peers.serve import LoadedPeer
from overflight.runtime.bundle import Bundle
from overflight.runtime.decisions.decide import Decider
from overflight.runtime.decisions.match import Matcher
from overflight.runtime.flight.journal import Journal
from overflight.runtime.frame import Frame
from overflight.runtime.observe import Observer
from overflight.runtime.resize import Resizer
from overflight.runtime.store import choose

if TYPE_CHECKING:
    from collections.abc import Callable


# How often each runs in one turn: a few milliseconds, well above what reading the clock disturbs.
REPEATS = {"resize": 1, "match": 50, "decide": 20, "append": 50, "baseline": 1}
_LABELS = 200


def load(job: dict[str, Any]) -> LoadedPeer:
    """Prepare every hot function on one picture; ``embed`` is the bundle's engine, on one thread.

    Timed by the thread's own clock: what the scheduler gives to others is no cost of the function.
    """
    bundle = Bundle.open(job["bundle"])
    engine = choose(bundle, "onnxruntime-cpu", "fp32", threads=job["threads"]).engine
    work = hot_calls(bundle, np.load(job["pictures"])[0], embed=engine.embed)
    return LoadedPeer(engine.embed, {engine.info.target: engine.info.version}, others=work, clock=time.thread_time_ns)


def hot_calls(
    bundle: Bundle, picture: NDArray[np.uint8], embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
) -> dict[str, Callable[[], object]]:
    """Return each function's turn by name; ``picture`` is uint8 ``[H, W, 3]`` in BGR."""
    bank = random_bank(bundle.manifest, _LABELS)
    resizer, matcher, decider = Resizer(bundle.manifest.resize), Matcher(bank), Decider(bank)
    out = np.empty((resizer.side, resizer.side, 3), np.uint8)
    resizer.resize(picture, out, "bgr")
    embedding = np.array(embed(out[None])[0])
    match = matcher.match(embedding)
    frame = Frame(picture, 0, time.monotonic_ns(), order="bgr")

    class Engine:
        info = _Info()

        def embed(self, _: NDArray[np.uint8]) -> NDArray[np.float32]:
            return embedding[None]

    observer = Observer(Engine(), bank, bundle.manifest.resize)  # type: ignore[arg-type]
    observation = observer.observe(observer.prepare(frame), {}).observation
    folder = tempfile.mkdtemp()  # lives as long as the process: a journal is written into it until then
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    journal = Journal(Path(folder) / "journal.sqlite")
    work: dict[str, Callable[[], object]] = {
        "resize": lambda: resizer.resize(picture, out, "bgr"),
        "match": lambda: matcher.match(embedding),
        "decide": lambda: decider.decide(match),
        "append": lambda: journal.append(observation, embedding),
        "baseline": _baseline(picture),
    }
    blas = ThreadpoolController()
    return {name: _turn(call, REPEATS[name], blas) for name, call in work.items()}


class _Info:
    target, precision, sha256 = "onnxruntime-cpu", "fp32", "0" * 64


def _turn(call: Callable[[], object], repeat: int, blas: ThreadpoolController) -> Callable[[], object]:
    def turn() -> None:
        with blas.limit(limits=1):  # as the observer does
            for _ in range(repeat):
                call()

    return turn


def _baseline(picture: NDArray[np.uint8]) -> Callable[[], object]:
    """Numpy alone, of the resize's kind: bytes to floats, and narrow products over them."""
    rows = picture.reshape(len(picture), -1)
    floats = np.empty(rows.shape, np.float32)
    narrow = np.random.default_rng(0).standard_normal((96, 18)).astype(np.float32)

    def work() -> None:
        np.copyto(floats, rows)
        for start in range(0, floats.shape[1] - 96, 96):
            np.matmul(floats[:, start : start + 96], narrow)

    return work
