"""Checkpoints: a Hugging Face style directory, its tensors mapped from disk one at a time."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from overflight.export.tower import Weight
from overflight.runtime.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
TOKENIZERS = ("spiece.model", "tokenizer.json")
TOKENIZER_CONFIG = "tokenizer_config.json"

# bfloat16 is read as its 16 bits: they are the upper half of a float32.
_STORED: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_PIECE_BYTES = 1 << 22

Shape = TypeVar("Shape", bound=msgspec.Struct)


class _Tensor(msgspec.Struct, frozen=True):
    """One entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str]


@dataclass(frozen=True)
class _Stored:
    """Where a tensor's bytes lie."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def read(self) -> NDArray[np.float32]:
        """Map the tensor and widen it to float32; the mapping goes with the array."""
        if self.dtype not in _STORED:
            raise UsageError(
                f"{self.path}: a weight is {self.dtype}, expected F32, F16 or BF16; convert the checkpoint"
            )
        stored = np.memmap(self.path, _STORED[self.dtype], "r", self.start, self.shape or (1,)).reshape(self.shape)
        if self.dtype == "BF16":
            widened: NDArray[np.float32] = (stored.astype("<u4") << 16).view("<f4")
            return widened
        return np.asarray(stored, dtype=np.float32)

    def pieces(self) -> Iterator[bytes]:
        """Read the tensor's bytes in order, a few megabytes at a time, without mapping them."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = self.stop - self.start
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                left -= len(piece)
                yield piece


class Checkpoint:
    """An opened checkpoint: its settings, and its tensors by name."""

    def __init__(self, directory: Path, stored: dict[str, _Stored]) -> None:
        self.directory = directory
        self._stored = stored

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read the headers of a checkpoint's safetensors. Raises MissingError or UsageError."""
        if not (directory / CONFIG).is_file():
            raise MissingError(f"{directory}: no checkpoint here (no {CONFIG}); give a Hugging Face directory or id")
        stored: dict[str, _Stored] = {}
        for path in _files(directory):
            stored.update(_read_header(path))
        return cls(directory, stored)

    def settings(self, form: type[Shape], name: str = CONFIG) -> Shape:
        """Read one of the checkpoint's JSON files as ``form``. Raises UsageError where a value does not fit."""
        found: Shape = read_json(self.directory / name, form)
        return found

    def preprocessing(self) -> dict[str, Any]:
        """Read how pictures are prepared, from either of the files that transformers has kept it in."""
        for name in PREPROCESSING:
            path = self.directory / name
            if path.is_file():
                found = read_json(path, dict[str, Any])
                nested = found.get("image_processor", found if name == PREPROCESSING[0] else None)
                if isinstance(nested, dict):
                    return nested
        raise MissingError(f"{self.directory}: no {PREPROCESSING[0]}; resize, mean and std are unknown without it")

    def tokenizers(self) -> tuple[Path, ...]:
        """Return the tokenizer files that are there, at least one, and their settings. Raises MissingError."""
        found = tuple(self.directory / name for name in TOKENIZERS if (self.directory / name).is_file())
        if not found:
            raise MissingError(f"{self.directory}: no tokenizer; put {' or '.join(TOKENIZERS)} beside the weights")
        settings = self.directory / TOKENIZER_CONFIG
        return (*found, settings) if settings.is_file() else found

    def holds(self, name: str) -> bool:
        """Tell whether there is a tensor of this name."""
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape. Raises UsageError where there is none."""
        if name not in self._stored:
            raise UsageError(f"{self.directory}: no tensor {name!r} of the model that {CONFIG} describes")
        return self._stored[name].shape

    def weight(self, name: str, *shape: int) -> Weight:
        """Return a tensor, unread, whose shape must be what the settings imply. Raises UsageError."""
        got = self.shape(name)
        if got != shape:
            raise UsageError(
                f"{self.directory}: tensor {name!r} is {list(got)}, but {CONFIG} implies {list(shape)}; "
                "weights and config are not of the same model"
            )
        return Weight(shape, self._stored[name].read)

    def scalar(self, name: str) -> float:
        """Read a tensor that holds one number."""
        if math.prod(self.shape(name)) != 1:
            raise UsageError(f"{self.directory}: tensor {name!r} is {list(self.shape(name))}, expected one number")
        return float(self._stored[name].read().reshape(()))

    @property
    def size_bytes(self) -> int:
        """The size of all tensors as stored."""
        return sum(entry.stop - entry.start for entry in self._stored.values())

    def hash_tensors(self, report: Callable[[float], None] = lambda share: None) -> str:
        """SHA-256 over every tensor's name, dtype, shape and bytes, by name: the same however they are sharded."""
        digest, done, total = hashlib.sha256(), 0, max(self.size_bytes, 1)
        for name in sorted(self._stored):
            entry = self._stored[name]
            digest.update(f"{name}\0{entry.dtype}\0{','.join(map(str, entry.shape))}\0".encode())
            for piece in entry.pieces():
                digest.update(piece)
                done += len(piece)
                report(done / total)
        return digest.hexdigest()


def read_json(path: Path, form: type[Any]) -> Any:
    """Read a JSON file as ``form``. Raises UsageError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except OSError as error:
        raise MissingError(f"{path}: {error.strerror}; the checkpoint is incomplete") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: {error}; not the settings of a model that can be exported") from error


def _files(directory: Path) -> list[Path]:
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    if not (directory / INDEX).is_file():
        raise MissingError(f"{directory}: neither {SINGLE} nor {INDEX}; the weights must be safetensors")
    names = sorted(set(read_json(directory / INDEX, _Index).weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise UsageError(f"{directory / INDEX}: {name!r} leads out of the checkpoint; do not use it")
    return [directory / name for name in names]


def _read_header(path: Path) -> dict[str, _Stored]:
    """Read where each tensor lies, and let the library check that the file is whole."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            header = msgspec.json.decode(raw.read(length), type=dict[str, msgspec.Raw])
    except (OSError, SafetensorError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}: not a whole safetensors file ({error}); download it again") from error
    stored = {}
    for name in names:
        tensor = msgspec.json.decode(header[name], type=_Tensor)
        start, stop = (8 + length + offset for offset in tensor.data_offsets)
        stored[name] = _Stored(path, tensor.dtype, tensor.shape, start, stop)
    return stored
