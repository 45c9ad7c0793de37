"""minisign's file formats: Ed25519 public keys and signatures that the standard tool reads and writes.

A signature file has four lines: an untrusted comment, the signature, a trusted comment, and a second signature over the
first one and the trusted comment. ``ED`` signs the BLAKE2b-512 hash of a file, the older ``Ed`` the file itself.
The format is described at https://jedisct1.github.io/minisign/.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from overflight.runtime.errors import SignatureError, missing_extra

MAX_TEXT = 4096  # characters of a key or signature file; minisign's own are below 1 kB
SUFFIX = ".minisig"
_ALGORITHM = b"Ed"
_PREHASHED = b"ED"
_UNTRUSTED = "untrusted comment: "
_TRUSTED = "trusted comment: "


@dataclass(frozen=True)
class PublicKey:
    """A public key: its 8-byte identity and the 32 bytes of Ed25519."""

    id: bytes
    raw: bytes

    @property
    def name(self) -> str:
        """The key's identity as minisign prints it: 16 hex digits."""
        return key_name(self.id)

    @classmethod
    def parse(cls, text: str, *, source: str) -> PublicKey:
        """Read a ``.pub`` file or its bare base64 line. Raises SignatureError."""
        lines = [line.strip() for line in text[:MAX_TEXT].splitlines() if line.strip()]
        encoded = lines[-1] if lines and len(lines) <= 2 else ""
        raw = _decode(encoded, 42)
        if raw is None or raw[:2] != _ALGORITHM:
            raise SignatureError(f"{source}: not a minisign public key; make a pair with: overflight keys new")
        return cls(raw[2:10], raw[10:])

    def encode(self) -> str:
        """Return the content of the ``.pub`` file."""
        line = base64.b64encode(_ALGORITHM + self.id + self.raw).decode()
        return f"{_UNTRUSTED}minisign public key {self.name}\n{line}\n"


@dataclass(frozen=True)
class Signature:
    """A signature file: who signed, how, and the trusted comment that is signed too."""

    key_id: bytes
    prehashed: bool
    content_signature: bytes
    comment: str
    comment_signature: bytes

    @classmethod
    def parse(cls, text: str, *, source: str) -> Signature:
        """Read the content of a ``.minisig`` file. Raises SignatureError."""
        lines = text[: MAX_TEXT + 1].split("\n")
        lines = [line.rstrip("\r") for line in lines]
        while lines and not lines[-1]:
            lines.pop()
        content = _decode(lines[1], 74) if len(lines) == 4 else None
        comment = _decode(lines[3], 64) if len(lines) == 4 else None
        if (
            len(text) > MAX_TEXT
            or content is None
            or comment is None
            or content[:2] not in (_ALGORITHM, _PREHASHED)
            or not lines[0].startswith(_UNTRUSTED)
            or not lines[2].startswith(_TRUSTED)
        ):
            raise SignatureError(f"{source}: not a minisign signature; sign again with: overflight sign")
        trusted = lines[2].removeprefix(_TRUSTED)
        return cls(content[2:10], content[:2] == _PREHASHED, content[10:], trusted, comment)

    def encode(self) -> str:
        """Return the content of the ``.minisig`` file."""
        algorithm = _PREHASHED if self.prehashed else _ALGORITHM
        content = base64.b64encode(algorithm + self.key_id + self.content_signature).decode()
        comment = base64.b64encode(self.comment_signature).decode()
        return (
            f"{_UNTRUSTED}signature from overflight, key {key_name(self.key_id)}\n{content}\n"
            f"{_TRUSTED}{self.comment}\n{comment}\n"
        )


def verify(key: PublicKey, signature: Signature, content: bytes, *, source: str) -> None:
    """Check both signatures of a signature file with the key that it names. Raises SignatureError, MissingError."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise missing_extra("cryptography", "signatures") from error
    try:
        public = Ed25519PublicKey.from_public_bytes(key.raw)
        public.verify(signature.content_signature, prehash(content) if signature.prehashed else content)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(
            f"{source}: the content does not match its signature by key {key.name}; it was changed after signing, "
            "copy it again or sign it again with: overflight sign"
        ) from error
    try:
        public.verify(signature.comment_signature, signature.content_signature + signature.comment.encode())
    except InvalidSignature as error:
        raise SignatureError(
            f"{source}: the trusted comment does not match its signature by key {key.name}; it was changed after "
            "signing, copy the signature again or sign again with: overflight sign"
        ) from error


def prehash(content: bytes) -> bytes:
    """Return what an ``ED`` signature signs: the BLAKE2b-512 hash."""
    return hashlib.blake2b(content).digest()


def key_name(key_id: bytes) -> str:
    """Return a key's identity as minisign prints it."""
    return key_id[::-1].hex().upper()


def _decode(line: str, length: int) -> bytes | None:
    try:
        raw = base64.b64decode(line.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == length else None
