"""Torch files (.pt, .pth, .bin) read as archives: torch is not needed, and nothing in the pickle runs.

A file is a zip of one pickle and its raw storages, or, before torch 1.6, several pickles followed by the storages. The
pickle is read with an unpickler that knows tensors and dictionaries; every other class becomes an inert placeholder.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from overflight.export.tensors import ITEM_BYTES, Stored, span_of
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_SCRIPT = "__torch__."  # the module that every TorchScript class claims to come from
_DEPTH_LIMIT = 64


@dataclass(frozen=True)
class Archive:
    """The tensors of a torch file by name, and the TorchScript classes that the file mentions."""

    tensors: dict[str, Stored]
    classes: frozenset[str]


@dataclass(frozen=True)
class _Storage:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass
class _Inert:
    """Stands in for any object of a class that is not needed; it keeps its state and does nothing."""

    state: Any = field(default=None, init=False)

    def __init__(self, *arguments: object, **named: object) -> None:
        self.state = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __call__(self, *arguments: object, **named: object) -> _Inert:
        return _Inert()

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        pass

    def extend(self, values: object) -> None:
        pass


class _Rebuild:
    """Stands in for the functions of torch that make a tensor of a storage or a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, first: object, *rest: Any) -> object:
        if not isinstance(first, _Storage):
            return first  # _rebuild_parameter(tensor, requires_grad, hooks)
        offset, shape, strides = rest[:3]
        return _Tensor(first, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


class _Unpickler(pickle.Unpickler):
    """Reads tensors, dictionaries and plain values; runs nothing that the pickle names."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.classes: set[str] = set()

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module_name in ("torch._utils", "torch._tensor") and global_name.startswith("_rebuild_"):
            return _Rebuild()
        if module_name.startswith("torch") and global_name in _STORAGES:
            return _STORAGES[global_name]
        if module_name.startswith(_SCRIPT.rstrip(".")):
            self.classes.add(f"{module_name}.{global_name}")
        return type(global_name, (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, str):
            raise pickle.UnpicklingError(f"a storage of a kind that is not known: {str(pid)[:80]}")
        return _Storage(dtype, str(key), int(count))


def read_archive(path: Path) -> Archive:
    """Read where each weight of a torch file lies. Raises UsageError for anything but a file of weights."""
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                found, places, classes = _read_zip(file)
            else:
                found, places, classes = _read_legacy(file)
        references = dict(_flatten(_choose(path, found)))
        tensors = {name: _place(path, tensor, places) for name, tensor in references.items()}
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; copy or download the file again") from error
    except Exception as error:  # a damaged pickle answers with a dozen unrelated errors
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"{path}: not a complete torch file of weights ({what}); download it again, or give a safetensors file"
        ) from error
    if not tensors:
        raise UsageError(f"{path}: contains no tensors; give the file with the model's weights")
    return Archive(tensors, frozenset(classes))


def _read_zip(file: Any) -> tuple[Any, dict[str, tuple[int, int]], set[str]]:
    """Return the pickled object, each storage's byte offset and size, and the TorchScript classes."""
    file.seek(0)
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    pickled = next((name for name in members if name.endswith("/data.pkl") or name == "data.pkl"), None)
    if pickled is None:
        raise pickle.UnpicklingError("a zip file without data.pkl")
    root = pickled.removesuffix("data.pkl")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise pickle.UnpicklingError("its numbers are stored big-endian")
    unpickler = _Unpickler(io.BytesIO(archive.read(pickled)))
    found = unpickler.load()
    places = {}
    for name, info in members.items():
        if name.startswith(f"{root}data/"):
            if info.compress_type != zipfile.ZIP_STORED:
                raise pickle.UnpicklingError("its storages are compressed")
            file.seek(info.header_offset + 26)
            header = file.read(4)
            start = info.header_offset + 30 + int.from_bytes(header[:2], "little")
            places[name[len(root) + 5 :]] = (start + int.from_bytes(header[2:], "little"), info.file_size)
    return found, places, unpickler.classes


def _read_legacy(file: Any) -> tuple[Any, dict[str, tuple[int, int]], set[str]]:
    """Read the form before torch 1.6: magic number, protocol, system, object, storage keys, then the storages."""
    file.seek(0)
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise pickle.UnpicklingError("neither a zip file nor torch's older form")
    _Unpickler(file).load()
    _Unpickler(file).load()
    unpickler = _Unpickler(file)
    found = unpickler.load()
    keys = _Unpickler(file).load()
    storages = {storage.key: storage for storage in _storages(found)}
    position = file.tell()
    end = file.seek(0, io.SEEK_END)
    places = {}
    for key in keys:
        file.seek(position)
        count = int.from_bytes(file.read(8), "little")
        size = count * ITEM_BYTES[storages[key].dtype] if key in storages else 0
        if key not in storages or position + 8 + size > end:
            raise pickle.UnpicklingError("the file ends early")
        places[key] = (position + 8, size)
        position += 8 + size
    return found, places, unpickler.classes


def _storages(found: Any, depth: int = 0) -> Iterator[_Storage]:
    if isinstance(found, _Tensor):
        yield found.storage
    elif depth < _DEPTH_LIMIT:
        inner = found.state if isinstance(found, _Inert) else found
        values = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, (list, tuple)) else ()
        for value in values:
            yield from _storages(value, depth + 1)


def _choose(path: Path, found: Any) -> Any:
    """Return the part of a training's file that is the model: open_clip's ``state_dict``, else the only candidate."""
    if isinstance(found, _Inert):
        return found
    if not isinstance(found, dict):
        raise UsageError(f"{path}: contains {_kind(found)}, expected the weights of a model by name")
    if isinstance(found.get("state_dict"), dict):
        return _choose(path, found["state_dict"])
    if any(isinstance(value, _Tensor) for value in found.values()):
        return found
    candidates = [
        str(key)
        for key, value in found.items()
        if isinstance(value, dict) and value and all(map(_weight, value.values()))
    ]
    if len(candidates) == 1:
        return found[candidates[0]]
    if not candidates:
        keys = ", ".join(str(key)[:40] for key in list(found)[:6]) or "nothing"
        raise UsageError(f"{path}: contains {keys}, but no weights by name; give the file with the model's weights")
    raise UsageError(f"{path}: contains several models ({', '.join(candidates[:6])}); save one of them to its own file")


def _weight(value: object) -> bool:
    return isinstance(value, _Tensor)


def _kind(found: object) -> str:
    return "a single tensor" if isinstance(found, _Tensor) else f"a {type(found).__name__}"


def _flatten(found: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, _Tensor]]:
    """Name the tensors of a state dict, or of a TorchScript module and the modules inside it."""
    if depth > _DEPTH_LIMIT:
        raise pickle.UnpicklingError("modules are nested too deeply")
    items = found.state if isinstance(found, _Inert) else found
    if not isinstance(items, dict):
        return
    for key, value in items.items():
        if isinstance(value, _Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, _Inert) and isinstance(found, _Inert):
            yield from _flatten(value, f"{prefix}{key}.", depth + 1)
        elif isinstance(value, (dict, _Inert)) and not isinstance(found, _Inert):
            raise UsageError(f"{prefix}{key} in the file is a {type(value).__name__}, expected a tensor")


def _place(path: Path, tensor: _Tensor, places: dict[str, tuple[int, int]]) -> Stored:
    storage = tensor.storage
    start, size = places[storage.key]
    item = ITEM_BYTES[storage.dtype]
    inside = (
        len(tensor.shape) == len(tensor.strides)
        and min((*tensor.shape, *tensor.strides, tensor.offset), default=0) >= 0
    )
    if not inside or (tensor.offset + span_of(tensor.shape, tensor.strides)) * item > size:
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    strides = None if tensor.strides == _in_order(tensor.shape) or 0 in tensor.shape else tensor.strides
    return Stored(path, storage.dtype, tensor.shape, start + tensor.offset * item, strides)


def _in_order(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
