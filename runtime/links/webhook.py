"""Webhooks: an HTTP POST for every event.

The body is the event as JSON; a thumbnail is a POST of its own with ``Content-Type: image/jpeg``. ``Idempotency-Key``
names the message for ever, ``Overflight-Event`` the event. Any 2xx answer is an acknowledgement; 400, 413, 415 and
422 say that this message will never be taken; anything else, or none, is tried again.
"""

from __future__ import annotations

import base64
import http.client
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from overflight import __version__
from overflight.runtime.links.message import LinkDown, Message, Refused
from overflight.runtime.links.message import brief as shorten
from overflight.runtime.links.tls import NO_FILES, TlsFiles, connecting_context

if TYPE_CHECKING:
    from http.client import HTTPConnection

TIMEOUT_S = 10.0
NEVER = {400, 413, 415, 422}


class WebhookLink:
    """A web server, spoken to over one kept connection."""

    overhead_bytes = 300  # request and response headers
    grace_s = 0.0
    refresh_s: float | None = None

    def __init__(self, uri: str, tls: TlsFiles = NO_FILES) -> None:
        parts = urlsplit(uri)
        self._tls = tls
        self._secure = parts.scheme == "https"
        self._host, self._port = str(parts.hostname), parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"User-Agent": f"overflight/{__version__}"}
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self._connection: HTTPConnection | None = None

    def open(self) -> None:
        """Connect."""
        if self._secure:
            context = connecting_context(self._tls)
            self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            self._connection.connect()
        except OSError as error:
            self.close()
            raise LinkDown(f"{self._host}: {error}") from error

    def check(self) -> None:
        """A web server keeps no idle connection; the next POST will tell."""

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        """Return the event as JSON, or the JPEG."""
        if message.kind == "thumbnail":
            return message.picture
        return msgspec.json.encode(shorten(message.event) if brief else message.event)

    def send(self, message: Message, payload: bytes) -> None:
        """Post, and take any 2xx for an acknowledgement."""
        kind = "image/jpeg" if message.kind == "thumbnail" else "application/json"
        headers = {
            **self._headers,
            "Content-Type": kind,
            "Idempotency-Key": message.key,
            "Overflight-Event": message.event.id,
        }
        if self._connection is None:
            raise LinkDown(f"{self._host}: not connected")
        try:
            self._connection.request("POST", self._path, payload, headers)
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise LinkDown(f"{self._host}: {error or type(error).__name__}") from error
        if answer.status in NEVER:
            raise Refused(f"{self._host}: {answer.status} {answer.reason}")
        if not 200 <= answer.status < 300:
            raise LinkDown(f"{self._host}: {answer.status} {answer.reason}")

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
