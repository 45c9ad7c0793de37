"""Snapshots: a camera that gives single pictures over HTTP, asked again and again."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.frame import Frame
from overflight.runtime.sources.image import decode_still

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_S = 1.0
TIMEOUT_S = 5.0
_MOST_BYTES = 64 << 20


class Snapshots:
    """``http://camera/snapshot.jpg``, once a second, or every ``#every=SECONDS``: frames until one cannot be had."""

    live = True
    count = None

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        address, _, every = address.partition("#every=")
        try:
            self._interval_s = float(every or INTERVAL_S)
            self._url, self._opener = web_page(address)
        except ValueError as error:
            raise UsageError(f"{name}: not understood; expected http://HOST/PICTURE.jpg#every=1") from error

    def frames(self) -> Iterator[Frame]:
        """Ask for picture after picture. Raises SourceError when one cannot be had."""
        number, due_s = 0, time.monotonic()
        while True:
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s, time.monotonic() - self._interval_s) + self._interval_s
            asked_ns, asked_utc_ns = time.monotonic_ns(), time.time_ns()  # the camera takes it when it is asked
            pixels = decode_still(self._fetch(), self.name)
            yield Frame(pixels, number, asked_ns, asked_utc_ns, order="bgr")
            number += 1

    def close(self) -> None:
        """Nothing is held open."""

    def _fetch(self) -> bytes:
        try:
            with self._opener.open(self._url, timeout=TIMEOUT_S) as answer:
                raw = bytes(answer.read(_MOST_BYTES + 1))
        except urllib.error.HTTPError as error:
            raise SourceError(refusal(self.name, error)) from error
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise SourceError(f"{self.name}: {reason}; check the address and the network") from error
        if len(raw) > _MOST_BYTES:
            raise SourceError(f"{self.name}: a picture of more than {_MOST_BYTES >> 20} MB; check the address")
        return raw


def web_page(address: str) -> tuple[str, urllib.request.OpenerDirector]:
    """Return an address without its user, and what opens it as that user. Raises ValueError."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    url = urlunsplit((parts.scheme, host + port, parts.path, parts.query, ""))
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username:
        passwords.add_password(None, url, unquote(parts.username), unquote(parts.password or ""))
    return url, urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    )


def refusal(name: str, error: urllib.error.HTTPError) -> str:
    """Say in one line why a camera refused."""
    advice = {401: "wrong user name or password", 404: "nothing under this path; check the path"}
    return f"{name}: {advice.get(error.code, f'the camera refused: {error.code}')}"
