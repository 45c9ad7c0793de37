"""Checkpoints of a calibration: each finished stage is kept on disk, so that an interrupted one resumes."""

from __future__ import annotations

import hashlib
import io
import shutil
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import msgspec
import numpy as np

from overflight.runtime.durable import write_atomically
from overflight.runtime.paths import home

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[Any]]


class Keeper:
    """A folder for one calibration: same bundle, sources and settings, same folder."""

    def __init__(self, *key: object) -> None:
        name = hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:16]
        self.path: Path = home() / "calibrations" / name

    def arrays(self, stage: str, make: Callable[[], Arrays]) -> Arrays:
        """Return what a stage made, now or before."""
        path = self.path / f"{stage}.npz"
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as kept:
                    return {name: kept[name] for name in kept.files}
            except (ValueError, OSError, KeyError, EOFError, BadZipFile):
                path.unlink()
        made = make()
        self.path.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **made)
        write_atomically(path, buffer.getvalue())
        return made

    def rows(
        self, stage: str, count: int, width: int, make: Callable[[int], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return float32 ``[count, width]``, made row by row; rows that are on disk are not made again."""
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.path / f"{stage}.f32"
        size = width * 4
        with path.open("ab") as file:
            done = file.tell() // size
            file.truncate(done * size)  # half a row that a power cut left
            for index in range(done, count):
                file.write(np.ascontiguousarray(make(index), np.float32).tobytes())
                if index % 16 == 15:
                    file.flush()
        return np.fromfile(path, np.float32).reshape(-1, width)[:count]

    def forget(self) -> None:
        """Remove the folder: the calibration is complete."""
        shutil.rmtree(self.path, ignore_errors=True)
