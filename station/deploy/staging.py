"""Staging: a bundle or a bank that arrived is checked whole before it may lie among the deployed ones."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.runtime.bank import open_bank
from overflight.runtime.bundle import MANIFEST, SIGNATURE, Bundle
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import BundleError, OverflightError
from overflight.runtime.signatures.signature_files import signature_path

if TYPE_CHECKING:
    from overflight.runtime.bank import LabelBank
    from overflight.station.deploy.deployments import Deployments

RESERVE_BYTES = 256 << 20  # what a flight may need meanwhile


def stage_bundle(deployments: Deployments, source: Path) -> Bundle:
    """Verify a bundle's signature and every file, and put it among the deployed bundles; an incoming one is moved.

    Raises SignatureError, BundleError for a file that is changed or that the manifest does not name, MissingError.
    """
    opened = Bundle.open(source)
    place = deployments.bundle_path(opened.sha256)
    if not is_whole(place):
        check_members(opened)
        opened.verify()
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():  # damaged, and perhaps in use: it goes only for something better
            shutil.rmtree(place)
        if source.parent == deployments.incoming:
            source.rename(place)
        else:
            _copy(opened, place)
    elif source.parent == deployments.incoming:
        _refresh_signature(source, place)
        shutil.rmtree(source)
    elif source != place:
        _refresh_signature(source, place)
    staged = Bundle.open(place)
    staged.verify()
    return staged


def stage_bank(deployments: Deployments, source: Path, bundle: Bundle) -> tuple[LabelBank, Path]:
    """Check a bank's signature and its tower, and put it among the deployed banks. Raises what is wrong with it."""
    bank = open_bank(source, bundle)
    bank.check_fits(bundle.manifest, source=str(source))
    place = deployments.bank_path(bank.sha256)
    place.parent.mkdir(parents=True, exist_ok=True)
    signature = signature_path(source)
    if signature.exists():
        write_atomically(signature_path(place), signature.read_bytes())
    write_atomically(place, source.read_bytes())
    if source.parent == deployments.incoming:
        source.unlink()
        signature.unlink(missing_ok=True)
    return bank, place


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a bundle whose every file is as its manifest says."""
    try:
        Bundle.open(folder, signed=False).verify()
    except OverflightError:
        return False
    return True


def check_members(bundle: Bundle) -> None:
    """Refuse a staged folder that holds anything but regular files that the manifest names. Raises BundleError."""
    named = {*bundle.manifest.files, MANIFEST, SIGNATURE}
    for folder, folders, files in os.walk(bundle.directory):
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            relative = path.relative_to(bundle.directory).as_posix()
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BundleError(f"{path}: not a regular file; a deployed bundle holds files only, copy it again")
            if stat.S_ISREG(mode) and relative not in named:
                raise BundleError(f"{path}: the manifest does not name it; delete it, or export the bundle again")


def check_space(folder: Path, needed_bytes: int) -> None:
    """Refuse what would fill the disk that a flight records to. Raises OverflightError with the numbers."""
    free = shutil.disk_usage(folder).free
    if needed_bytes + RESERVE_BYTES > free:
        raise OverflightError(
            f"{folder}: {needed_bytes / 1e6:.0f} MB are needed and {RESERVE_BYTES / 1e6:.0f} MB kept free, "
            f"{free / 1e6:.0f} MB are free; delete flights that were copied off, or old deployments"
        )


def _copy(bundle: Bundle, place: Path) -> None:
    names = [*bundle.manifest.files, MANIFEST]
    if (bundle.directory / SIGNATURE).exists():
        names.append(SIGNATURE)
    check_space(place.parent, sum((bundle.directory / name).stat().st_size for name in names))
    partial = place.with_name(f".{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for name in names:
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with (bundle.directory / name).open("rb") as old, target.open("wb") as new:
                shutil.copyfileobj(old, new, 1 << 20)
                new.flush()
                os.fsync(new.fileno())
        partial.rename(place)
    except OSError as error:
        raise OverflightError(f"{place}: {error.strerror}; free the disk and try again") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refresh_signature(source: Path, place: Path) -> None:
    """Take over a newer signature of a bundle that was deployed before."""
    if (source / SIGNATURE).exists():
        write_atomically(place / SIGNATURE, (source / SIGNATURE).read_bytes())


def prepare(deployments: Deployments, sha256: str, size_bytes: int) -> bool:
    """Make room for an upload and delete what other uploads left; return whether the bundle is there already.

    Raises OverflightError where it does not fit onto the disk, MissingError where the folder cannot be written.
    """
    incoming = deployments.incoming
    with deployments.lock():
        present = bool(sha256) and is_whole(deployments.bundle_path(sha256))
        incoming.mkdir(parents=True, exist_ok=True)
        for left in incoming.iterdir():
            if left.name != sha256[:16]:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        have = sum(path.stat().st_size for path in (incoming / sha256[:16]).rglob("*") if path.is_file())
        check_space(incoming, 0 if present else max(0, size_bytes - have))
        return present
