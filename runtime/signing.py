"""Sign bundles and label banks, and check them as an aircraft would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overflight.runtime.bank import LabelBank, open_bank
from overflight.runtime.bundle import MANIFEST, Bundle
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.signatures.minisign import verify
from overflight.runtime.signatures.signature_files import signature_path

if TYPE_CHECKING:
    from overflight.runtime.signatures import Approval
    from overflight.runtime.signatures.secret_key import SecretKey
    from overflight.runtime.signatures.terms import Terms

BOARD = Path("/etc/nv_tegra_release")


def sign_path(path: Path, key: SecretKey, terms: Terms) -> Path:
    """Sign a bundle (a folder) or a bank (a file) and return the signature file that was written.

    The content is checked first, so that nothing damaged is ever signed. Raises what reading it raises.
    """
    if path.is_dir():
        Bundle.open(path, signed=False).verify()
        signed = path / MANIFEST
        name = f"{path.resolve().name}/{MANIFEST}"
    else:
        LabelBank.load(path)
        signed, name = path, path.name
    content = signed.read_bytes()
    signature = key.sign(content, terms.comment(name))
    verify(key.public, signature, content, source=str(path))
    place = signature_path(signed)
    try:
        write_atomically(place, signature.encode().encode())
    except OSError as error:
        raise OverflightError(f"{place}: {error.strerror}; copy it to a folder that can be written") from error
    return place


def check_path(path: Path) -> Approval | None:
    """Check a bundle (a folder) or a bank (a file) as this machine would before using it."""
    if path.is_dir():
        opened = Bundle.open(path)
        opened.verify()
        return opened.approval
    return open_bank(path).approval


def refuse_on_board() -> None:
    """Refuse to handle secret keys on an aircraft's computer. Raises UsageError."""
    if BOARD.exists():
        raise UsageError(
            f"this is a Jetson ({BOARD} exists); secret keys stay on the ground, so that a lost aircraft cannot sign: "
            "make keys and sign on another computer"
        )
