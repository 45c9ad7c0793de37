"""Fetching: a bundle or a bank from a web server, for an aircraft that nobody can reach.

A bundle is the directory itself on any static server: ``URL/manifest.json``, ``URL/manifest.json.minisig`` and the
files that the manifest names. An interrupted download resumes.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from overflight.runtime.bundle import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, Manifest, hash_file
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import BundleError, OverflightError, UsageError
from overflight.runtime.json_input import decode_json
from overflight.runtime.redact import redact
from overflight.runtime.signatures import verify_signed
from overflight.runtime.signatures.minisign import MAX_TEXT, SUFFIX
from overflight.station.deploy.staging import check_space, is_whole

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from overflight.runtime.links.tls import TlsFiles
    from overflight.station.deploy.deployments import Deployments

MAX_BANK_BYTES = 64 << 20
READ_S = 30.0
_PIECE = 1 << 20
_MOST_REDIRECTS = 5


@dataclass(frozen=True)
class Web:
    """How servers are spoken to: TLS files, a token for ``Authorization``, and seconds for a whole download."""

    tls: TlsFiles
    token: str | None = None
    within_s: float = 3600.0
    trusted: bool = False  # whether a signature will be demanded; without one, plain http:// is refused

    def fetch_bundle(self, url: str, deployments: Deployments, report: Callable[[str], None]) -> Path:
        """Download a bundle into the incoming folder, every file checked; return its folder. Raises OverflightError.

        Of a bundle that is deployed already, only the manifest and the signature are downloaded.
        """
        base = url.rstrip("/") + "/"
        raw = self._small(base + MANIFEST, MAX_MANIFEST_BYTES)
        if raw is None:
            raise OverflightError(f"{redact(base)}: no {MANIFEST} there (404); name a bundle's folder on the server")
        signature = self._small(base + SIGNATURE, MAX_TEXT)
        text = None if signature is None else signature.decode("utf-8", "replace")
        verify_signed(raw, text, kind="bundle", source=redact(base))
        try:
            manifest = decode_json(raw, Manifest)
        except msgspec.DecodeError as error:
            raise BundleError(f"{redact(base)}: not a manifest ({error}); export the bundle again") from error
        sha256 = hashlib.sha256(raw).hexdigest()
        folder = deployments.incoming / sha256[:16]
        folder.mkdir(parents=True, exist_ok=True)
        if not is_whole(deployments.bundle_path(sha256)):
            self._files(base, manifest, folder, report)
        if signature is not None:
            write_atomically(folder / SIGNATURE, signature)
        write_atomically(folder / MANIFEST, raw)
        return folder

    def _files(self, base: str, manifest: Manifest, folder: Path, report: Callable[[str], None]) -> None:
        end = time.monotonic() + self.within_s
        for number, (name, sha256) in enumerate(sorted(manifest.files.items()), 1):
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts:
                raise BundleError(f"{redact(base)}: {name!r} leads out of the bundle; do not use this bundle")
            report(f"{number}/{len(manifest.files)} {name}")
            self._file(urljoin(base, quote(name)), folder / name, sha256, end)

    def fetch_bank(self, url: str, incoming: Path) -> Path:
        """Download a bank and its signature, if any, into ``incoming``; return its file. Raises OverflightError."""
        raw = self._small(url, MAX_BANK_BYTES)
        if raw is None:
            raise OverflightError(f"{redact(url)}: not there (404); name a label bank's file on the server")
        parts = urlsplit(url)
        signature = self._small(parts._replace(path=parts.path + SUFFIX).geturl(), MAX_TEXT)
        incoming.mkdir(parents=True, exist_ok=True)
        place = incoming / "fetched.safetensors"
        (incoming / f"{place.name}{SUFFIX}").unlink(missing_ok=True)
        if signature is not None:
            write_atomically(incoming / f"{place.name}{SUFFIX}", signature)
        write_atomically(place, raw)
        return place

    def _small(self, url: str, most: int) -> bytes | None:
        """Return a small resource, or None where the server says 404."""
        connection, answer = self._get(url, 0)
        with closing(connection):
            if answer.status == 404:
                return None
            raw = b""
            end = time.monotonic() + READ_S
            while piece := _read(answer, url, min(_PIECE, most + 1 - len(raw))):
                raw += piece
                if len(raw) > most:
                    raise OverflightError(f"{redact(url)}: more than {most} bytes; expected less")
                _check_time(url, end)
            return raw

    def _file(self, url: str, place: Path, sha256: str, end: float) -> None:
        if place.exists() and hash_file(place) == sha256:
            return None
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(place.name + ".part")
        have = part.stat().st_size if part.exists() else 0
        connection, answer = self._get(url, have)
        with closing(connection):
            if answer.status == 416:  # what is there is longer than the file: start again
                part.unlink()
                return self._file(url, place, sha256, end)
            length = answer.getheader("Content-Length")
            if length is None or not length.isdigit():
                raise OverflightError(f"{redact(url)}: no Content-Length; the server must say how much comes")
            check_space(place.parent, int(length))
            whole = int(length) + (have if answer.status == 206 else 0)
            try:
                with part.open("ab" if answer.status == 206 else "wb") as file:
                    while piece := _read(answer, url, _PIECE):
                        file.write(piece)
                        _check_time(url, end)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise OverflightError(f"{part}: {error.strerror}; free the disk, the download then resumes") from error
        if part.stat().st_size < whole:
            raise OverflightError(f"{redact(url)}: the connection ended early; try again, it resumes")
        got = hash_file(part)
        if got != sha256:
            part.unlink()
            raise BundleError(
                f"{redact(url)}: SHA-256 is {got[:16]}…, the manifest says {sha256[:16]}…; upload the bundle again"
            )
        part.replace(place)
        return None

    def _get(
        self, url: str, offset: int, redirects: int = 0
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(url)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        connection = self._connect(url)
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise OverflightError(f"{redact(url)}: {error or type(error).__name__}; try again, it resumes") from error
        if answer.status in (301, 302, 303, 307, 308):
            connection.close()
            target = urljoin(url, answer.getheader("Location") or "")
            if urlsplit(target).netloc != parts.netloc or redirects == _MOST_REDIRECTS:
                raise OverflightError(f"{redact(url)}: redirected to {redact(target)}; name that address yourself")
            return self._get(target, offset, redirects + 1)
        if answer.status not in (200, 206, 404, 416) or (answer.status == 404 and offset):
            connection.close()
            raise OverflightError(
                f"{redact(url)}: the server answered {answer.status} {answer.reason}; try again later"
            )
        return connection, answer

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.hostname:
            context: ssl.SSLContext = self.tls.context()
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=READ_S, context=context)
        if parts.scheme == "http" and parts.hostname and self.trusted:
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=READ_S)
        raise UsageError(
            f"{redact(url)}: expected https://HOST/…, or http:// on a machine that trusts a key (overflight keys trust)"
        )


def _read(answer: http.client.HTTPResponse, url: str, most: int) -> bytes:
    try:
        return answer.read1(most)
    except (OSError, http.client.HTTPException) as error:
        raise OverflightError(f"{redact(url)}: {error or type(error).__name__}; try again, it resumes") from error


def _check_time(url: str, end: float) -> None:
    if time.monotonic() > end:
        raise OverflightError(f"{redact(url)}: the server is too slow; try again, it resumes")
