"""Signatures in files next to what they sign, or before it in one piece over a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.runtime.errors import SignatureError
from overflight.runtime.signatures.minisign import MAX_TEXT, SUFFIX
from overflight.runtime.signatures.trust import TrustedKeys

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

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


def _text(raw: bytes, *, source: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise SignatureError(f"{source}: not a minisign signature; sign again with: overflight sign") from error
