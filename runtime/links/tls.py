"""TLS of links: which certificate authority is believed, and the certificate that this aircraft shows."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from overflight.runtime.errors import UsageError
from overflight.runtime.links.message import LinkDown


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: ``ca`` instead of the system's authorities, ``cert`` with its ``key`` for servers that ask for one."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that checks the server's name and certificate. Raises UsageError for a file.

        Files are read at every connection, so that a renewed certificate needs no restart.
        """
        if self.key and not self.cert:
            raise UsageError("a TLS key without its certificate; name both, as in #cert=FILE&key=FILE")
        _require(self.ca, self.cert, self.key)
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(f"{self.ca}: not a certificate authority in PEM form ({_reason(error)})") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except (ssl.SSLError, OSError) as error:
                raise UsageError(
                    f"{self.cert}: not a certificate with its key in PEM form, unencrypted ({_reason(error)})"
                ) from error
        return context


NO_FILES = TlsFiles()


def connecting_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context for a connection that is opened in flight. Raises LinkDown, so that it is tried again."""
    try:
        return files.context()
    except UsageError as error:
        raise LinkDown(str(error)) from error


def _require(*files: str | None) -> None:
    for file in files:
        if file is None:
            continue
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            raise UsageError(f"{file}: {error.strerror}; expected a PEM file that this user can read") from error


def _no_password() -> str:
    """Answer OpenSSL with no password: it would otherwise ask on the terminal, and wait there."""
    return ""


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
