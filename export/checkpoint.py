"""Checkpoints: a directory or a file of weights, its tensors mapped from disk one at a time."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from overflight.export.archive import read_archive
from overflight.export.settings import read_json
from overflight.export.tensors import Stored, read_safetensors
from overflight.export.tower import Weight
from overflight.runtime.errors import MissingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CONFIG = "config.json"
OPEN_CLIP = "open_clip_config.json"
ADAPTER = "adapter_config.json"
TOKENIZERS = ("spiece.model", "tokenizer.json")
TOKENIZER_CONFIG = "tokenizer_config.json"
TRANSFORMERS_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_BIN_INDEX = "pytorch_model.bin.index.json"
# In open_clip's own order of preference.
OPEN_CLIP_OWN = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
# What wraps a model's names in a training: data parallel, Lightning, torch.compile, a class around the model.
_WRAPPERS = ("module.", "model.", "_orig_mod.", "clip_model.", "clip.", "net.", "base_model.")

Layout = Literal["transformers", "open_clip"]


@dataclass(frozen=True)
class Reading:
    """What the user says about a checkpoint that its files do not.

    ``like`` names a known architecture for a bare file, ``tokenizer`` is a directory whose tokenizer files to use,
    ``base`` the checkpoint that a LoRA adapter was trained on.
    """

    like: str | None = None
    tokenizer: Path | None = None
    base: Path | None = None


AS_FOUND = Reading()


class Checkpoint:
    """An opened checkpoint: its settings and its tensors by name. It remembers which tensors were used.

    ``classes`` are the TorchScript classes that an archive mentions.
    """

    def __init__(
        self,
        source: Path,
        layout: Layout,
        stored: dict[str, Stored],
        reading: Reading = AS_FOUND,
        classes: frozenset[str] = frozenset(),
    ) -> None:
        self.source, self.layout, self.like, self.classes = source, layout, reading.like, classes
        self.directory = source if source.is_dir() else source.parent
        self.files: tuple[Path, ...] = ()
        self.notes: list[str] = []
        self._tokenizer = reading.tokenizer
        self._stored = stored
        self._used: set[str] = set()
        self._changes: dict[str, Callable[[Weight], Weight]] = {}

    @classmethod
    def open(cls, source: Path, reading: Reading = AS_FOUND) -> Checkpoint:
        """Find the weights of a directory or file and read where they lie. Raises MissingError or UsageError."""
        if source.is_dir() and (source / ADAPTER).is_file():
            from overflight.export.adapter import open_adapted

            return open_adapted(source, reading)
        if reading.base is not None:
            raise UsageError(f"{source}: no {ADAPTER} there, so --base has no meaning; remove --base")
        return cls.open_plain(source, reading)

    @classmethod
    def open_plain(cls, source: Path, reading: Reading = AS_FOUND) -> Checkpoint:
        """Open a checkpoint whatever adapter lies in its directory. Raises MissingError or UsageError."""
        files = _find_weights(source) if source.is_dir() else [source]
        stored: dict[str, Stored] = {}
        classes: frozenset[str] = frozenset()
        for path in files:
            if path.suffix == ".safetensors":
                found = read_safetensors(path)
            else:
                archive = read_archive(path)
                found, classes = archive.tensors, classes | archive.classes
            twice = stored.keys() & found.keys()
            if twice:
                raise UsageError(
                    f"{path}: {min(twice)!r} is in another file of this checkpoint too; remove one of them"
                )
            stored.update(found)
        stored = _unwrap(stored)
        odd = _oddity(stored)
        if odd is not None:
            raise UsageError(f"{source}: contains {odd}")
        layout = _layout(source, stored)
        if reading.like is not None and layout == "transformers":
            raise UsageError(f"{source}: {CONFIG} describes this model, so --like has no meaning; remove --like")
        opened = cls(source, layout, stored, reading, classes)
        opened.files = tuple(files)
        return opened

    def file(self, name: str) -> Path:
        """Return the path of a file of this checkpoint, which may be missing."""
        return self.directory / name

    def settings(self, name: str = CONFIG) -> dict[str, Any]:
        """Read one of the checkpoint's JSON files. Raises UsageError or MissingError."""
        return read_json(self.file(name))

    @property
    def tokenizer_directory(self) -> Path:
        """Where the tokenizer files are."""
        return self._tokenizer or self.directory

    def tokenizers(self) -> tuple[Path, ...]:
        """Return the tokenizer files that are there, at least one, and their settings. Raises MissingError."""
        directory = self.tokenizer_directory
        found = tuple(directory / name for name in TOKENIZERS if (directory / name).is_file())
        if not found:
            raise MissingError(
                f"{directory}: no tokenizer; put {' or '.join(TOKENIZERS)} next to the weights, or give --tokenizer"
            )
        settings = directory / TOKENIZER_CONFIG
        return (*found, settings) if settings.is_file() else found

    @property
    def names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._stored)

    def has(self, name: str) -> bool:
        """Tell whether there is a tensor of this name."""
        return name in self._stored

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape. Raises UsageError where there is none."""
        if name not in self._stored:
            raise UsageError(
                f"{self.source}: no tensor {name!r}, which the settings imply; weights and settings are not of the "
                "same model, or the file is incomplete"
            )
        return self._stored[name].shape

    def dtype(self, name: str) -> str:
        """Return how a tensor is stored, as safetensors names it: F32, F16 or BF16."""
        return self._stored[name].dtype

    def weight(self, name: str, *shape: int) -> Weight:
        """Return a tensor, unread, whose shape must be what the settings imply. Raises UsageError."""
        got = self.shape(name)
        if got != shape:
            raise UsageError(
                f"{self.source}: tensor {name!r} is {list(got)}, but the settings imply {list(shape)}; "
                "weights and settings are not of the same model"
            )
        self._used.add(name)
        weight = Weight(shape, self._stored[name].read)
        return self._changes[name](weight) if name in self._changes else weight

    def scalar(self, name: str) -> float:
        """Read a tensor that contains one number."""
        if math.prod(self.shape(name)) != 1:
            raise UsageError(f"{self.source}: tensor {name!r} is {list(self.shape(name))}, expected one number")
        self._used.add(name)
        return float(self._stored[name].read().reshape(()))

    def skip(self, *endings: str) -> None:
        """Count tensors whose names end so as used: constants that every model of this kind has."""
        self._used |= {name for name in self._stored if name.endswith(endings)}

    @property
    def adapted(self) -> bool:
        """Whether an adapter was merged in."""
        return bool(self._changes)

    def change(self, name: str, change: Callable[[Weight], Weight]) -> None:
        """Let ``change`` make what :meth:`weight` returns for this name."""
        self._changes[name] = change

    def add(self, stored: dict[str, Stored]) -> None:
        """Add tensors of another file, which the hash covers too."""
        self._stored = {**self._stored, **stored}

    def check_consumed(self) -> None:
        """Raise UsageError and name the tensors that nothing has read: the model is not what its settings say."""
        unread = sorted(self._stored.keys() - self._used)
        if not unread:
            return
        more = f" and {len(unread) - 4} more" if len(unread) > 4 else ""
        raise UsageError(
            f"{self.source}: {len(unread)} of {len(self._stored)} tensors belong to no part of the model that the "
            f"settings describe: {', '.join(unread[:4])}{more}; such a model cannot be exported faithfully"
        )

    @property
    def size_bytes(self) -> int:
        """The size of all tensors as stored."""
        return sum(entry.size_bytes for entry in self._stored.values())

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


def _oddity(names: Iterable[str]) -> str | None:
    """Say which well-known kind of weights is not plain, and what to do about it."""
    joined = list(names)
    if any("lora_" in name.lower() for name in joined):
        return "LoRA weights: merge them first, or export the adapter's directory with its base"
    if any(name.endswith((".theta", ".r")) for name in joined):
        return "weights split into length and direction (GmP): convert them to plain weights first"
    if any(name.endswith(("_scale_inv", ".SCB", ".absmax", ".qweight", ".qzeros")) for name in joined):
        return "quantised weights: give the original checkpoint"
    return None


def _find_weights(directory: Path) -> list[Path]:
    """Return the files of weights of a directory: open_clip's own where they are there, else transformers'."""
    here = {path.name for path in directory.iterdir()}
    if OPEN_CLIP in here:
        for name in (*OPEN_CLIP_OWN, *(() if CONFIG in here else TRANSFORMERS_WEIGHTS)):
            if name in here:
                return [directory / name]
    if CONFIG in here and any(name in here for name in (*TRANSFORMERS_WEIGHTS, _BIN_INDEX)):
        return _transformers_files(directory, here)
    if CONFIG not in here and OPEN_CLIP not in here:
        raise UsageError(
            f"{directory}: no checkpoint here (no {CONFIG}, no {OPEN_CLIP}); give the directory or hub id of one, "
            "or a file of weights with --like"
        )
    expected = (*TRANSFORMERS_WEIGHTS, *(OPEN_CLIP_OWN if OPEN_CLIP in here else ()))
    raise MissingError(f"{directory}: settings but no weights; expected one of {', '.join(expected)}")


def _first(here: set[str]) -> str:
    return next(name for name in (*TRANSFORMERS_WEIGHTS, _BIN_INDEX) if name in here)


def _transformers_files(directory: Path, here: set[str]) -> list[Path]:
    name = _first(here)
    if not name.endswith(".index.json"):
        return [directory / name]
    mapped = read_json(directory / name).get("weight_map")
    if not isinstance(mapped, dict) or not mapped or not all(isinstance(file, str) for file in mapped.values()):
        raise UsageError(f"{directory / name}: no weight_map of tensors to files; download it again")
    names = sorted(set(mapped.values()))
    for file in names:
        if Path(file).name != file:
            raise UsageError(f"{directory / name}: {file!r} leads out of the checkpoint; do not use it")
    return [directory / file for file in names]


def _unwrap(stored: dict[str, Stored]) -> dict[str, Stored]:
    """Remove prefixes that every name has."""
    while True:
        wrapper = next((one for one in _WRAPPERS if all(name.startswith(one) for name in stored)), None)
        if wrapper is None or not stored:
            return stored
        stored = {name.removeprefix(wrapper): entry for name, entry in stored.items()}


def _layout(source: Path, stored: dict[str, Stored]) -> Layout:
    """Tell the layout by the names of the tensors, which neither library shares with the other."""
    if any(name.startswith(("vision_model.", "text_model.")) for name in stored):
        return "transformers"
    if any(name.startswith("visual.") for name in stored):
        return "open_clip"
    if source.is_dir() and (source / CONFIG).is_file():
        return "transformers"  # config.json says what it is, and the refusal can name it
    some = ", ".join(sorted(stored)[:4])
    raise UsageError(
        f"{source}: its tensors are not those of a CLIP or SigLIP model ({some[:200]}); "
        "expected vision_model.… (transformers) or visual.… (open_clip)"
    )
