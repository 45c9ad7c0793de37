"""Secret keys in minisign's format: made and used on the ground, never on an aircraft."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from overflight.runtime.errors import SignatureError, UsageError, missing_extra
from overflight.runtime.signatures.minisign import MAX_TEXT, PublicKey, Signature, key_name, prehash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HEAD = struct.Struct("<2s2s2s32sQQ")  # signature, derivation and checksum algorithms, salt, operations, memory
_BODY = struct.Struct("<8s64s32s")  # key identity, seed and public key, checksum
# 128 MiB and a few tenths of a second: OWASP's recommendation for scrypt (N=2^17, r=8, p=1).
_OPERATIONS = 1 << 22
_MEMORY = 1 << 27
_MOST_MEMORY = 1 << 30  # what minisign itself uses; a file that asks for more is refused


@dataclass(frozen=True)
class SecretKey:
    """An Ed25519 seed with its key identity."""

    id: bytes
    seed: bytes
    raw_public: bytes

    @classmethod
    def make(cls) -> SecretKey:
        """Make a new random key."""
        seed = secrets.token_bytes(32)
        return cls(secrets.token_bytes(8), seed, _public_of(seed))

    @classmethod
    def load(cls, path: Path, password: Callable[[], str]) -> SecretKey:
        """Read a secret key file; ``password`` is called only for an encrypted one. Raises SignatureError."""
        try:
            status = path.stat()
            with path.open("rb") as file:
                text = file.read(MAX_TEXT).decode("ascii", "replace")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}; make a key with: overflight keys new") from error
        if status.st_mode & 0o077:
            raise UsageError(f"{path}: other users can read this secret key; run: chmod 600 {path}")
        return cls._decode(text, password, source=str(path))

    @classmethod
    def _decode(cls, text: str, password: Callable[[], str], *, source: str) -> SecretKey:
        lines = text.split("\n")
        try:
            raw = base64.b64decode(lines[1], validate=True)
            algorithm, derivation, _, salt, operations, memory = _HEAD.unpack_from(raw)
            body = raw[_HEAD.size :]
            if algorithm != b"Ed" or derivation not in (b"Sc", b"\0\0") or len(body) != _BODY.size:
                raise ValueError
        except (IndexError, binascii.Error, ValueError, struct.error) as error:
            raise SignatureError(f"{source}: not a minisign secret key; make one with: overflight keys new") from error
        encrypted = derivation == b"Sc"
        if encrypted:
            body = _mask(body, _stream(password(), salt, operations, memory, source=source))
        key_id, key, checksum = _BODY.unpack(body)
        if encrypted and checksum != _checksum(key_id, key):
            raise SignatureError(f"{source}: wrong password, or a damaged file; try again")
        return cls(key_id, key[:32], key[32:])

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.id, self.raw_public)

    def encode(self, password: str | None) -> str:
        """Return the content of the secret key file, encrypted unless ``password`` is None."""
        key = self.seed + self.raw_public
        body = _BODY.pack(self.id, key, _checksum(self.id, key))
        if password is None:
            head = _HEAD.pack(b"Ed", b"\0\0", b"B2", bytes(32), 0, 0)
        else:
            salt = secrets.token_bytes(32)
            head = _HEAD.pack(b"Ed", b"Sc", b"B2", salt, _OPERATIONS, _MEMORY)
            body = _mask(body, _stream(password, salt, _OPERATIONS, _MEMORY, source="new key"))
        line = base64.b64encode(head + body).decode()
        return f"untrusted comment: minisign encrypted secret key {key_name(self.id)}\n{line}\n"

    def sign(self, content: bytes, comment: str) -> Signature:
        """Sign content and a one-line trusted comment."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        signed = private.sign(prehash(content))
        return Signature(self.id, True, signed, comment, private.sign(signed + comment.encode()))


def save_pair(key: SecretKey, path: Path, password: str | None) -> Path:
    """Write ``path`` (mode 0600) and its ``.pub``; returns the latter. Raises UsageError where a file exists."""
    public = path.with_suffix(".pub")
    for existing in (path, public):
        if existing.exists():
            raise UsageError(f"{existing}: already exists; a lost secret key cannot be made again, choose another name")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key.encode(password))
            file.flush()
            os.fsync(file.fileno())
        public.write_text(key.public.encode(), encoding="ascii")
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}; choose a folder that can be written") from error
    return public


def _public_of(seed: bytes) -> bytes:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise missing_extra("cryptography", "signatures") from error
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def _checksum(key_id: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(b"Ed" + key_id + key, digest_size=32).digest()


def _stream(password: str, salt: bytes, operations: int, memory: int, *, source: str) -> bytes:
    """Derive the bytes that hide a secret key, with the parameters that libsodium picks from the two limits."""
    try:
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError as error:
        raise missing_extra("cryptography", "signatures") from error
    if not 1 << 20 <= memory <= _MOST_MEMORY or operations > 1 << 30:
        raise SignatureError(f"{source}: asks for {memory >> 20} MiB to check the password; expected 1 to 1024 MiB")
    n, p = _scrypt_cost(max(operations, 32768), memory)
    return Scrypt(salt=salt, length=_BODY.size, n=n, r=8, p=p).derive(password.encode())


def _scrypt_cost(operations: int, memory: int) -> tuple[int, int]:
    """Return scrypt's N and p as libsodium's crypto_pwhash_scryptsalsa208sha256 chooses them (r is 8)."""
    if operations < memory // 32:
        return 1 << _log2(operations // 32), 1
    log_n = _log2(memory // 1024)
    return 1 << log_n, max(1, min((operations // 4) >> log_n, 0x3FFFFFFF) // 8)


def _log2(most: int) -> int:
    return next(bits for bits in range(1, 63) if 1 << bits > most // 2)


def _mask(body: bytes, stream: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(body, stream, strict=True))
