"""The label bank: the cached label matrix with its texts, groups and thresholds, bound to the tower that made it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.runtime.bundle import write_atomically
from overflight.runtime.errors import BankError, UsageError

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Manifest
    from overflight.runtime.signatures import Approval

SCHEMA = 1
_KEY = "overflight"


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """One label: what is reported, the prompts whose mean embedding stands for it, and how it is judged.

    A ``background`` label is never reported: where it beats every other, the frame is unknown. ``threshold`` is the
    least score (or share, inside an exclusive group) at which the label is reported. ``templates`` names the header's
    forms that each prompt was set into; a sentence stood for itself.
    """

    text: str
    prompts: tuple[str, ...]
    group: str | None = None
    background: bool = False
    threshold: float | None = None
    templates: str | None = None


class BankHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything about a bank but its vectors.

    ``exclusive`` names the groups of which one label at most is true, ``templates`` the forms that its prompts were
    set into, by name: kept once, so that a bank of a hundred forms stays small enough for a thin link.
    """

    schema: int
    name: str
    model: str
    tower: str
    activation: Literal["sigmoid", "softmax"]
    logit_scale: float
    logit_bias: float
    labels: tuple[Label, ...]
    exclusive: tuple[str, ...] = ()
    templates: dict[str, tuple[str, ...]] = {}


class LabelBank:
    """A label matrix ready to be matched: unit ``vectors`` float32 ``[K, D]``, one row per label of ``header``."""

    def __init__(self, header: BankHeader, vectors: NDArray[np.float32], sha256: str) -> None:
        self.header = header
        self.vectors = vectors
        self.sha256 = sha256
        self.approval: Approval | None = None  # by a trusted key; None where none is trusted

    def __len__(self) -> int:
        return len(self.header.labels)

    @classmethod
    def make(cls, header: BankHeader, vectors: NDArray[np.floating]) -> LabelBank:
        """Make a bank from unit vectors ``[K, D]``; they are rounded to 16 bit, as the file keeps them."""
        return cls.decode(_encode(header, vectors), source=header.name)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LabelBank:
        """Read a bank. Raises BankError for what is not one."""
        return cls.decode(read_bank(path), source=str(path))

    @classmethod
    def decode(cls, raw: bytes, *, source: str) -> LabelBank:
        """Read a bank from the bytes of its file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            length = int.from_bytes(raw[:8], "little")
            meta = msgspec.json.decode(raw[8 : 8 + length], type=dict[str, msgspec.Raw]).get("__metadata__")
            text = {} if meta is None else msgspec.json.decode(meta, type=dict[str, str])
            if _KEY not in text:
                raise BankError(f"{source}: not a label bank (no {_KEY!r} entry); make one with: overflight labels")
            header = msgspec.json.decode(text[_KEY], type=BankHeader)
            vectors = load(raw)["vectors"].astype(np.float32)
        except (msgspec.DecodeError, SafetensorError, KeyError, OverflowError) as error:
            raise BankError(f"{source}: not a label bank ({error}); make one with: overflight labels") from error
        if header.schema != SCHEMA:
            raise BankError(f"{source}: bank schema {header.schema}, expected {SCHEMA}; make the bank again")
        if vectors.ndim != 2 or len(vectors) != len(header.labels) or not len(vectors):
            raise BankError(
                f"{source}: {len(header.labels)} labels but vectors {list(vectors.shape)}; make the bank again"
            )
        norms = np.linalg.norm(vectors, axis=1)
        if not np.all(np.abs(norms - 1) < 5e-3):  # 16-bit rounding moves a norm by less than 1e-3
            raise BankError(f"{source}: vectors are not of unit length; make the bank again")
        return cls(header, vectors, hashlib.sha256(raw).hexdigest())

    def accept(self) -> None:
        """Record that this bank is in use, so that an older one is refused. Raises SignatureError, MissingError."""
        if self.approval is not None:
            self.approval.accept()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank atomically, so that a watching runtime never reads half of it."""
        write_atomically(Path(path), _encode(self.header, self.vectors))

    def check_fits(self, manifest: Manifest, *, source: str = "label bank") -> None:
        """Refuse a bank made by another tower: its cosines would be noise. Raises UsageError."""
        if self.header.tower != manifest.tower:
            raise UsageError(
                f"{source}: made for {self.header.model} (tower {self.header.tower[:12]}), but the bundle is "
                f"{manifest.name} (tower {manifest.tower[:12]}); make it again with: overflight labels"
            )
        if self.vectors.shape[1] != manifest.width:
            raise UsageError(
                f"{source}: vectors of {self.vectors.shape[1]} numbers, the bundle's have {manifest.width}"
            )


def read_bank(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a bank's file. Raises UsageError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; make a bank with: overflight labels LABELS.txt --bundle BUNDLE"
        ) from error


def _encode(header: BankHeader, vectors: NDArray[np.floating]) -> bytes:
    from safetensors.numpy import save

    return save({"vectors": vectors.astype(np.float16)}, metadata={_KEY: msgspec.json.encode(header).decode()})
