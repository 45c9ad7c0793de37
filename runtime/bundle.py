"""The bundle: the portable, immutable directory that export writes and everything else reads."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import msgspec

from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import BundleError, MissingError, UsageError
from overflight.runtime.json_input import decode_json
from overflight.runtime.signatures import read_signature, verify_signed

if TYPE_CHECKING:
    import os

    from overflight.runtime.signatures import Approval

SCHEMA = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
MAX_MANIFEST_BYTES = 4 << 20

Family = Literal["siglip", "siglip2", "clip"]
Fit = Literal["squash", "crop", "letterbox"]
Filter = Literal["bicubic", "bilinear", "lanczos", "box"]
TokeniserKind = Literal["siglip", "siglip2", "clip", "open_clip"]
Clean = Literal["none", "whitespace", "lower", "canonicalise"]
Quantised = Literal["fp16", "int8"]  # the forms that calibration adds to the fp32 tower


class Resize(msgspec.Struct, frozen=True):
    """How a picture becomes the tower's square input: ``side`` pixels, Pillow's antialiased ``filter``, ``fit``.

    For ``crop``, the shorter edge is first scaled to ``edge`` pixels (0: to ``side``). Where an odd number of pixels is
    cut off, transformers rounds the first pixel ``down`` and torchvision rounds it to ``even``. ``fill`` is the grey
    level around a letterboxed picture.
    """

    side: int
    filter: Filter
    fit: Fit
    edge: int = 0
    rounding: Literal["down", "even"] = "down"
    fill: int = 127


class Tokenising(msgspec.Struct, frozen=True):
    """How a text becomes ``context`` token ids; the rules of each kind are in ``export/tokenise.py``.

    ``clean`` is what OpenCLIP does to a text before the tokenizer; ``pad`` is the id that fills the rest of the
    context, where the tokenizer's own files do not decide it.
    """

    kind: TokeniserKind
    context: int
    vocabulary: int
    clean: Clean = "none"
    pad: int | None = None


class Parity(msgspec.Struct, frozen=True):
    """How far a tower was from its reference on the golden inputs: largest absolute difference of unit embeddings."""

    tower: Literal["image", "text"]
    reference: str
    max_abs: float
    samples: int


class Origin(msgspec.Struct, frozen=True):
    """Where a fetched checkpoint came from: hub id, commit, the licence that was accepted, SHA-256 of its files."""

    repository: str
    revision: str
    licence: str
    files: dict[str, str]


class OutsideProof(msgspec.Struct, frozen=True):
    """How far the bundle was from the publisher's own library: its loading, its preparation of pictures and texts.

    Cosines are the lowest, ``max_abs`` the largest difference of unit embeddings, over ``pictures`` and ``texts``.
    """

    by: str
    pictures: int
    texts: int
    image_cosine: float
    image_max_abs: float
    text_cosine: float
    text_max_abs: float


class Judged(msgspec.Struct, frozen=True):
    """How faithful a quantised graph was to the fp32 one on the hold-out; the whole verdict lies in the bundle."""

    passed: bool
    cosine_mean: float
    cosine_p1: float


class Calibrated(msgspec.Struct, frozen=True):
    """What calibration added to a bundle: from how many frames, and each precision's fidelity where it was measured."""

    frames: int
    holdout: int
    precisions: dict[Quantised, Judged | None]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle is.

    ``tower`` is the SHA-256 of the checkpoint's tensors: label banks are bound to it, so a bundle exported again from
    the same checkpoint keeps its banks. ``logit_scale`` is the stored logarithm: a logit is
    exp(logit_scale)·cosine + logit_bias. ``files`` maps every other file's relative POSIX path to its SHA-256.
    ``notes`` say what the export assumed; ``proven`` is the proof by the publisher's own library, where there was one;
    ``origin`` is where a fetched model came from, ``templates`` the published prompt templates of its authors.
    """

    schema: int
    name: str
    family: Family
    activation: Literal["sigmoid", "softmax"]
    width: int
    logit_scale: float
    logit_bias: float
    resize: Resize
    tokenising: Tokenising
    tower: str
    opset: int
    exporter: str
    parity: tuple[Parity, ...]
    files: dict[str, str]
    calibrated: Calibrated | None = None
    notes: tuple[str, ...] = ()
    proven: OutsideProof | None = None
    origin: Origin | None = None
    templates: str = ""


def hash_file(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class Bundle:
    """An opened bundle. A file is checked against the manifest the first time it is asked for."""

    def __init__(self, directory: Path, manifest: Manifest, sha256: str, approval: Approval | None = None) -> None:
        self.directory = directory
        self.manifest = manifest
        self.sha256 = sha256
        self.approval = approval  # by a trusted key; None where none is trusted
        self._checked: set[str] = set()

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, signed: bool = True) -> Bundle:
        """Read a bundle's manifest and check its signature, where this machine trusts a key.

        ``signed=False`` opens a bundle that is still being made. Raises UsageError where no bundle is (MissingError for
        the default model's), BundleError where its manifest is torn or of another schema, SignatureError where no
        trusted key signed it.
        """
        path = Path(directory)
        try:
            with (path / MANIFEST).open("rb") as file:
                raw = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            kind = MissingError if path == default_bundle() else UsageError
            raise kind(
                f"{path}: no bundle here ({error.strerror}: {MANIFEST}); make one with: overflight export"
            ) from error
        if len(raw) > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path / MANIFEST}: more than {MAX_MANIFEST_BYTES >> 20} MiB; export it again")
        approval = _approve(path, raw) if signed else None
        try:
            schema = decode_json(raw, type=dict[str, msgspec.Raw]).get("schema")
            if schema is None or bytes(schema) != str(SCHEMA).encode():
                got = None if schema is None else bytes(schema).decode()
                raise BundleError(f"{path}: manifest schema {got}, expected {SCHEMA}; export the checkpoint again")
            manifest = decode_json(raw, type=Manifest)
        except msgspec.DecodeError as error:
            raise BundleError(f"{path / MANIFEST}: not a manifest ({error}); export the checkpoint again") from error
        for name in manifest.files:
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts:
                raise BundleError(f"{path / MANIFEST}: {name!r} leads out of the bundle; do not use this bundle")
        return cls(path, manifest, hashlib.sha256(raw).hexdigest(), approval)

    def accept(self) -> None:
        """Record that this bundle is in use, so that an older one is refused. Raises SignatureError, MissingError."""
        if self.approval is not None:
            self.approval.accept()

    def file(self, name: str) -> Path:
        """Return the path of one of the bundle's files, its content verified. Raises BundleError or MissingError.

        A large graph keeps its weights next to it, in ``name``.data: they are verified with it.
        """
        expected = self.manifest.files.get(name)
        if expected is None:
            raise MissingError(f"{self.directory}: holds no {name}; it holds {', '.join(sorted(self.manifest.files))}")
        path = self.directory / name
        if name in self._checked:
            return path
        try:
            got = hash_file(path)
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}; the bundle is torn, export or copy it again") from error
        if got != expected:
            raise BundleError(
                f"{path}: SHA-256 is {got[:16]}…, the manifest says {expected[:16]}…; "
                "the file was changed or damaged, export or copy the bundle again"
            )
        if f"{name}.data" in self.manifest.files:
            self.file(f"{name}.data")
        self._checked.add(name)
        return path

    def verify(self) -> None:
        """Check every file that the manifest names."""
        for name in self.manifest.files:
            self.file(name)


def seal(directory: Path, manifest: Manifest) -> Bundle:
    """Hash every file under ``directory`` into ``manifest`` and write it, last and atomically.

    A signature of the manifest before goes: it must be signed again.
    """
    (directory / SIGNATURE).unlink(missing_ok=True)
    files = {
        path.relative_to(directory).as_posix(): hash_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    sealed = msgspec.structs.replace(manifest, files=files)
    raw = msgspec.json.format(msgspec.json.encode(sealed), indent=1)
    write_atomically(directory / MANIFEST, raw)
    return Bundle.open(directory, signed=False)


def _approve(path: Path, manifest: bytes) -> Approval | None:
    return verify_signed(manifest, read_signature(path / MANIFEST), kind="bundle", source=str(path))


def default_bundle() -> Path:
    """Return where the default model's bundle lies: inside the installed package."""
    return Path(__file__).resolve().parent.parent / "models" / "bundle"
