"""The public face: load a bundle and a label bank once, then classify frames or follow a stream."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

from overflight.runtime.bank import LabelBank, open_bank
from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.errors import MissingError
from overflight.runtime.frame import Frame
from overflight.runtime.observe import Observer
from overflight.runtime.resize import Resizer
from overflight.runtime.store import choose
from overflight.runtime.stream import Stream

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from overflight.runtime.engines import Engine, Precision, Target
    from overflight.runtime.records import Observation
    from overflight.runtime.tiles import Tiling


class Overflight:
    """An image engine with a label bank.

    >>> with Overflight.load() as overflight:
    ...     observation = overflight.classify(pixels)  # uint8 [height, width, 3], RGB
    ...     print(observation.label, observation.scores[0].score)
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        bank: LabelBank,
        *,
        margin: float = 0.0,
        tiling: Tiling | None = None,
        engine_note: str = "",
    ) -> None:
        bank.check_fits(bundle.manifest)
        self.bundle = bundle
        self.engine = engine
        self.engine_note = engine_note  # what a flight must say about the choice of its engine
        self.bank = bank
        self.observer = Observer(engine, bank, bundle.manifest.resize, margin, tiling)

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        labels: str | os.PathLike[str] | LabelBank | None = None,
        *,
        threads: int = 0,
        margin: float = 0.0,
        tiling: Tiling | None = None,
        target: Target | None = None,
        precision: Precision | None = None,
        forced: bool = False,
    ) -> Overflight:
        """Load a bundle (the default model's when None) and a label bank (the bundle's own when None).

        ``threads`` 0 uses every core; ``margin`` is the lead in score without which a frame is unknown; ``tiling``
        evaluates the tiles of each frame too. The engine is the fastest one that ``overflight build`` proved on this
        device, the fp32 reference where nothing was built, or the one of ``target`` and ``precision``. An engine that
        failed the gate or was never measured is refused unless ``forced``. Raises BundleError, BankError or EngineError
        for what is damaged or refused, UsageError for a bank of another tower, MissingError for what is not there.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle or default_bundle())
        if not isinstance(labels, LabelBank):
            labels = LabelBank.load(own_bank(opened)) if labels is None else open_bank(labels, opened)
        labels.check_fits(opened.manifest)
        chosen = choose(opened, target, precision, forced=forced, threads=threads)
        return cls(opened, chosen.engine, labels, margin=margin, tiling=tiling, engine_note=chosen.note)

    def classify(self, picture: NDArray[np.uint8] | Frame) -> Observation:
        """Judge one picture: a Frame, or pixels uint8 ``[height, width, 3]`` in RGB."""
        frame = picture if isinstance(picture, Frame) else Frame(picture, 0, time.monotonic_ns(), time.time_ns())
        return self.observer.observe(self.observer.prepare(frame), {}).observation

    def embed(self, pictures: Sequence[NDArray[np.uint8] | Frame]) -> NDArray[np.float32]:
        """Embed pictures into unit vectors float32 ``[N, D]``."""
        return embed(self.engine, self.bundle, pictures)

    def stream(self, source: str) -> Iterator[Observation]:
        """Follow a source and yield an observation for every frame that could be trusted; see runtime/sources/."""
        stream = Stream(source, self.observer)
        try:
            for result in stream.results():
                yield result.observation
        finally:
            stream.close()

    def use(self, labels: str | os.PathLike[str] | LabelBank) -> None:
        """Match against another bank from the next frame on. A bank that does not fit is refused, the old one stays."""
        bank = labels if isinstance(labels, LabelBank) else open_bank(labels, self.bundle)
        bank.check_fits(self.bundle.manifest)
        self.bank = bank
        self.observer.use(bank)

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    def __enter__(self) -> Overflight:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@cache
def _thread_pools() -> ThreadpoolController:
    """Find the libraries' pools once: looking for them takes a millisecond."""
    return ThreadpoolController()


def embed(engine: Engine, bundle: Bundle, pictures: Sequence[NDArray[np.uint8] | Frame]) -> NDArray[np.float32]:
    """Embed pictures with the bundle's resize, one by one (no label bank needed), into ``[N, D]``.

    The resize uses one BLAS thread, as in flight and in bulk: another number of threads adds in another order, and a
    pixel that lies between two levels is then rounded the other way.
    """
    resizer = Resizer(bundle.manifest.resize)
    batch = np.empty((1, resizer.side, resizer.side, 3), np.uint8)
    embeddings = np.empty((len(pictures), engine.width), np.float32)
    with _thread_pools().limit(limits=1, user_api="blas"):
        for row, picture in zip(embeddings, pictures, strict=True):
            if isinstance(picture, Frame):
                resizer.resize(picture.picture, batch[0], picture.order)
            else:
                resizer.resize(picture, batch[0])
            row[:] = engine.embed(batch)[0]
    return embeddings


def own_bank(bundle: Bundle) -> Path:
    """Return the first label bank that is part of a bundle. Raises MissingError where there is none."""
    banks = sorted(name for name in bundle.manifest.files if name.startswith("labels/"))
    if not banks:
        raise MissingError(
            f"{bundle.directory}: the bundle holds no label bank; name one, or make one with: overflight labels"
        )
    return bundle.file(banks[0])
