"""The label bank: the cached label matrix with its texts, groups and thresholds, bound to the tower that made it.

``docs/formats.md`` describes the file. Format 2 is written; formats 1 and 2 are read.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from overflight.runtime.bank_limits import MOST_BYTES, MOST_HEADER_BYTES, check
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import BankError, UsageError
from overflight.runtime.signatures import read_signature, split_signed, verify_signed

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle, Manifest
    from overflight.runtime.signatures import Approval

SCHEMA = 2
READABLE = (1, 2)
_KEY = "overflight"


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """One label: what is reported, what its vector was made from, and how it is decided.

    A ``background`` label is never reported: where its logit is the highest, the frame is unknown. ``threshold`` is the
    least score (share, inside an exclusive group) at which the label is reported; None takes the header's.
    ``logit_scale`` (a natural logarithm) and ``logit_bias`` are the label's own; None takes the header's. ``prompts``
    are the texts whose mean embedding is the vector, and ``templates`` names the header's forms that they were set
    into (None: a sentence is its own prompt). ``examples`` holds the SHA-256 (16 hex digits) of each picture that the
    vector was made from, and ``curve`` what so many of them would have reached: their number, the mean AUROC of five
    draws, and its standard deviation.
    """

    text: str
    prompts: tuple[str, ...] = ()
    group: str | None = None
    background: bool = False
    threshold: float | None = None
    templates: str | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None
    examples: tuple[str, ...] = ()
    curve: tuple[tuple[int, float, float], ...] = ()


class BankHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything about a bank except its vectors.

    A label's logit is exp(logit_scale)·cosine + logit_bias. ``exclusive`` names the groups in which at most one label
    is true. ``templates`` maps a name to its forms, so that each form is stored once. ``threshold`` is the least score
    (share, for a softmax tower) of a label without a threshold of its own; every label of an exclusive group needs it
    too. None reports only the best label of a frame.
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
    threshold: float | None = None


class LabelBank:
    """A valid label bank: unit ``vectors`` float32 ``[K, D]``, one row per label of ``header``.

    ``raw`` is the file's content. It is written as it was read, so that a copy keeps the hash and the signature.
    """

    def __init__(self, header: BankHeader, vectors: NDArray[np.float32], raw: bytes) -> None:
        self.header = header
        self.vectors = vectors
        self.raw = raw
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.approval: Approval | None = None  # by a trusted key; None where none is trusted

    def __len__(self) -> int:
        return len(self.header.labels)

    @property
    def scales(self) -> NDArray[np.float32]:
        """Each label's factor from cosine to logit, float32 ``[K]``: exp(logit_scale)."""
        header = self.header
        return np.exp(
            [header.logit_scale if one.logit_scale is None else one.logit_scale for one in header.labels]
        ).astype(np.float32)

    @property
    def biases(self) -> NDArray[np.float32]:
        """Each label's logit at cosine 0, float32 ``[K]``."""
        header = self.header
        return np.array(
            [header.logit_bias if one.logit_bias is None else one.logit_bias for one in header.labels], np.float32
        )

    @classmethod
    def make(cls, header: BankHeader, vectors: NDArray[np.floating]) -> LabelBank:
        """Make a bank from unit vectors ``[K, D]``, rounded to 16 bit as in the file. Raises BankError."""
        header = msgspec.structs.replace(header, schema=SCHEMA)
        return cls.decode(_encode(header, vectors), source=header.name)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LabelBank:
        """Read and validate a bank file. Raises UsageError if it cannot be read, BankError if it is no valid bank."""
        return cls.decode(read_bank(path), source=str(path))

    @classmethod
    def decode(cls, raw: bytes, *, source: str) -> LabelBank:
        """Read and validate a bank from the content of its file. Raises BankError, whatever the bytes are."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if len(raw) > MOST_BYTES:
            raise BankError(f"{source}: over {MOST_BYTES:,} bytes; a label bank holds at most that, use fewer labels")
        try:
            header = _decode_header(raw, source)
            tensors = load(raw)
        except (msgspec.MsgspecError, SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BankError(f"{source}: not a label bank ({reason}); make one with: overflight labels") from error
        if list(tensors) != ["vectors"] or tensors["vectors"].dtype != np.float16:
            found = ", ".join(f"{name} {tensor.dtype}" for name, tensor in sorted(tensors.items()))[:200]
            raise BankError(f"{source}: tensors {found or 'none'}, expected vectors float16; make the bank again")
        vectors = tensors["vectors"].astype(np.float32)
        if fault := check(header, vectors):
            raise BankError(f"{source}: {fault}; make the bank again")
        return cls(header, vectors, bytes(raw))

    def accept(self) -> None:
        """Record that this bank is in use, so that an older one is refused. Raises SignatureError, MissingError."""
        if self.approval is not None:
            self.approval.accept()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bank atomically, so that a watching runtime never reads half of it."""
        write_atomically(Path(path), self.raw)

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


def open_bank(path: str | os.PathLike[str], bundle: Bundle | None = None) -> LabelBank:
    """Read a bank's file and check its signature, where this machine trusts a key.

    A file that the signed ``bundle`` names by its hash needs no signature of its own. Raises what reading it raises,
    and SignatureError.
    """
    raw = read_bank(path)
    named = (
        bundle is not None
        and bundle.approval is not None
        and hashlib.sha256(raw).hexdigest() in bundle.manifest.files.values()
    )
    approval = None
    if not named:
        approval = verify_signed(raw, read_signature(Path(path)), kind="bank", source=str(path))
    bank = LabelBank.decode(raw, source=str(path))
    bank.approval = approval
    return bank


def receive_bank(raw: bytes, *, source: str) -> LabelBank:
    """Read a bank that came over a link, its signature before it. Raises BankError, SignatureError."""
    signature, content = split_signed(raw, source=source)
    approval = verify_signed(content, signature, kind="bank", source=source)
    bank = LabelBank.decode(content, source=source)
    bank.approval = approval
    return bank


def read_bank(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a bank's file, at most one more than a bank may have. Raises UsageError."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # looked at before it is opened: a FIFO would block
            raise UsageError(f"{path}: not a regular file; expected a label bank")
        with Path(path).open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: {reason}; make a bank with: overflight labels LABELS.txt --bundle BUNDLE") from error


def _decode_header(raw: bytes, source: str) -> BankHeader:
    """Read the header from the safetensors metadata. Raises BankError, or what a decoder raises."""
    length = int.from_bytes(raw[:8], "little")
    if length > MOST_HEADER_BYTES:
        raise BankError(f"{source}: not a label bank (a header of {length:,} bytes); make one with: overflight labels")
    meta = msgspec.json.decode(raw[8 : 8 + length], type=dict[str, msgspec.Raw]).get("__metadata__")
    text = {} if meta is None else msgspec.json.decode(meta, type=dict[str, str])
    if _KEY not in text:
        raise BankError(f"{source}: not a label bank (no {_KEY!r} entry); make one with: overflight labels")
    schema = msgspec.json.decode(text[_KEY], type=dict[str, msgspec.Raw]).get("schema")
    if schema is None or bytes(schema) not in {str(one).encode() for one in READABLE}:
        got = "none" if schema is None else bytes(schema)[:20].decode(errors="replace")
        raise BankError(f"{source}: bank format {got}, expected 1 or 2; make the bank again, or update overflight")
    return msgspec.json.decode(text[_KEY], type=BankHeader)


def _encode(header: BankHeader, vectors: NDArray[np.floating]) -> bytes:
    from safetensors.numpy import save

    return save({"vectors": vectors.astype(np.float16)}, metadata={_KEY: msgspec.json.encode(header).decode()})
