"""The doors: how signed bundles and label banks come in, as files or in one piece over a link."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.runtime.errors import SignatureError
from overflight.runtime.signatures.minisign import MAX_TEXT, SUFFIX
from overflight.runtime.signatures.trust import TrustedKeys

if TYPE_CHECKING:
    import os
    from typing import Literal

    from overflight.runtime.bank import LabelBank
    from overflight.runtime.bundle import Bundle
    from overflight.runtime.signatures.trust import Approval

    Kind = Literal["bundle", "bank"]

_START = b"untrusted comment: "


def verify_signed(
    content: bytes, signature: str | None, *, kind: Kind, source: str, keys: TrustedKeys | None = None
) -> Approval | None:
    """Check a bank's bytes, or a bundle's manifest, against the trusted keys; None where no key is trusted.

    Raises SignatureError with the reason: not signed, by a key that is not trusted, changed, for another aircraft,
    expired, or older than what was used before.
    """
    return (keys or TrustedKeys.load()).approve(content, signature, series=kind, source=source)


def open_bank(path: str | os.PathLike[str], bundle: Bundle | None = None) -> LabelBank:
    """Read a bank's file and check its signature, where this machine trusts a key.

    A file that the signed ``bundle`` names by its hash needs no signature of its own. Raises what reading it raises,
    and SignatureError.
    """
    from overflight.runtime.bank import LabelBank, read_bank

    raw = read_bank(path)
    named = bundle is not None and bundle.approval is not None and _sha256(raw) in bundle.manifest.files.values()
    approval = None
    if not named:
        approval = verify_signed(raw, read_signature(Path(path)), kind="bank", source=str(path))
    bank = LabelBank.decode(raw, source=str(path))
    bank.approval = approval
    return bank


def receive_bank(raw: bytes, *, source: str) -> LabelBank:
    """Read a bank that came over a link, its signature before it. Raises BankError, SignatureError."""
    from overflight.runtime.bank import LabelBank

    signature, content = split_signed(raw, source=source)
    approval = verify_signed(content, signature, kind="bank", source=source)
    bank = LabelBank.decode(content, source=source)
    bank.approval = approval
    return bank


def signature_path(path: Path) -> Path:
    """Return where the signature of a file lies: next to it, as minisign writes it."""
    return path.with_name(path.name + SUFFIX)


def read_signature(path: Path) -> str | None:
    """Return the text of a file's signature, or None where there is none. Raises SignatureError."""
    signature = signature_path(path)
    try:
        with signature.open("rb") as file:
            return _text(file.read(MAX_TEXT + 1), source=str(signature))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SignatureError(f"{signature}: {error.strerror}; copy the signature again") from error


def split_signed(raw: bytes, *, source: str) -> tuple[str | None, bytes]:
    """Split what came over a link into signature and content: ``cat BANK.minisig BANK`` makes such a piece.

    Content without a signature is returned as it is. Raises SignatureError.
    """
    if not raw.startswith(_START):
        return None, raw
    end = -1
    for _ in range(4):
        end = raw.find(b"\n", end + 1, MAX_TEXT)
        if end < 0:
            raise SignatureError(f"{source}: an incomplete signature; send: cat BANK.minisig BANK")
    return _text(raw[: end + 1], source=source), raw[end + 1 :]


def check_path(path: Path) -> Approval | None:
    """Check a bundle (a folder) or a bank (a file) as this machine would before using it."""
    from overflight.runtime.bundle import Bundle

    if path.is_dir():
        opened = Bundle.open(path)
        opened.verify()
        return opened.approval
    return open_bank(path).approval


def _text(raw: bytes, *, source: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise SignatureError(f"{source}: not a minisign signature; sign again with: overflight sign") from error


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
