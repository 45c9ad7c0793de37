"""From a checkpoint to a bundle: author both towers, prove them, seal the manifest, then rename it into place."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight import __version__
from overflight.export.author import author_image, author_text
from overflight.export.checkpoint import AS_FOUND, Checkpoint, Reading
from overflight.export.default_decisions import ship_decisions
from overflight.export.describe import describe
from overflight.export.graph import OPSET
from overflight.export.labels import compile_bank
from overflight.export.outside import prove_from_outside
from overflight.export.prove import prove
from overflight.export.reference import find_reference
from overflight.runtime.bundle import MANIFEST, SCHEMA, Bundle, Manifest, seal
from overflight.runtime.errors import OverflightError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from overflight.export.tower import Model
    from overflight.runtime.bundle import Origin, Parity

    Report = Callable[[str, float], None]  # receives the stage and its progress, 0 to 1

TOKENIZER = "tokenizer"
LABELS = "labels"


def export(
    checkpoint: Path,
    bundle: Path,
    *,
    name: str | None = None,
    labels: Sequence[Path] = (),
    replace: bool = False,
    prove_outside: bool = False,
    reading: Reading = AS_FOUND,
    origin: Origin | None = None,
    templates: str = "",
    report: Report = lambda stage, share: None,
) -> Bundle:
    """Export a checkpoint's directory or file into a new bundle; ``labels`` are label files whose banks ship with it.

    ``origin`` and ``templates`` go into the manifest. With ``prove_outside`` the publisher's own library has to agree.
    Raises UsageError where ``bundle`` exists and is not to be replaced, or the checkpoint is not one that can be
    exported; EngineError where a proof fails. Either the complete bundle appears, or nothing.
    """
    opened = Checkpoint.open(checkpoint, reading)
    model = describe(opened)
    with _appearing(bundle, replace=replace) as directory:
        _author(model, directory, report)
        (directory / TOKENIZER).mkdir()
        for path in opened.tokenizers():
            shutil.copyfile(path, directory / TOKENIZER / path.name)
        parity = prove(
            directory, model, find_reference(opened, model), lambda share: report("proving both towers", share)
        )
        tower = opened.hash_tensors(lambda share: report("hashing the checkpoint", share))
        ship_decisions(checkpoint, directory, tower)
        manifest = _manifest(
            model, name or checkpoint.resolve().name, tower, parity, tuple(dict.fromkeys(opened.notes))
        )
        manifest = msgspec.structs.replace(manifest, origin=origin, templates=templates)
        sealed = seal(directory, manifest)
        if prove_outside:
            report("proving from outside", 0.0)
            sealed = seal(directory, msgspec.structs.replace(manifest, proven=prove_from_outside(opened, sealed)))
        if labels:
            (directory / LABELS).mkdir()
            for path in labels:
                compile_bank(path, sealed).save(directory / LABELS / f"{path.stem}.safetensors")
            seal(directory, sealed.manifest)
    return Bundle.open(bundle, signed=False)


def check_target(target: Path, *, replace: bool) -> None:
    """Refuse a target that exists, before any work. Raises UsageError."""
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST).is_file()):
        raise UsageError(f"{target}: exists but is not a bundle; give another name")
    if not replace:
        raise UsageError(f"{target}: exists; give another name, or --replace")


def _author(model: Model, directory: Path, report: Report) -> None:
    author_image(model.image, model.embedding).save(
        directory / "image.onnx", lambda share: report("writing image.onnx", share)
    )
    author_text(model.text, model.embedding).save(
        directory / "text.onnx", lambda share: report("writing text.onnx", share)
    )


def _manifest(model: Model, name: str, tower: str, parity: tuple[Parity, ...], notes: tuple[str, ...]) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        name=name,
        family=model.family,
        activation=model.score,
        width=model.embedding,
        logit_scale=model.logit_scale,
        logit_bias=model.logit_bias,
        resize=model.resize,
        tokenising=model.tokenising,
        tower=tower,
        opset=OPSET,
        exporter=f"overflight {__version__}",
        parity=parity,
        files={},
        notes=notes,
    )


@contextmanager
def _appearing(target: Path, *, replace: bool) -> Iterator[Path]:
    """Yield a new directory next to ``target``, which it becomes in one step at the end, or which is removed."""
    check_target(target, replace=replace)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            yield scratch
            scratch.chmod(0o755)  # mkdtemp lets only its owner in
            _settle(scratch)
            _give_name(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise OverflightError(
            f"{error.filename or target}: {error.strerror}; nothing was left behind; free some space"
        ) from error


def _settle(directory: Path) -> None:
    """Flush every file and directory to the disk, so that they are complete after a power cut."""
    for path in (*directory.rglob("*"), directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _give_name(scratch: Path, target: Path) -> None:
    """Rename, or swap with the old bundle, which then has the scratch name."""
    if not target.exists():
        scratch.rename(target)
        return
    if not _swap(scratch, target):
        aside = scratch.with_suffix(".old.partial")
        target.rename(aside)
        scratch.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two directories in one step (renameat2, Linux 3.15); False where kernel or file system cannot."""
    exchange, here = 2, -100  # RENAME_EXCHANGE, AT_FDCWD
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(here, os.fsencode(one.absolute()), here, os.fsencode(other.absolute()), exchange) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))
