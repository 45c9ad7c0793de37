"""Webhooks: an HTTP POST for every event.

The body is the event as JSON; a thumbnail is a POST of its own with ``Content-Type: image/jpeg``. ``Idempotency-Key``
is the same each time a message is sent, ``Overflight-Event`` is the event's id. Any 2xx answer is an acknowledgement;
400, 413, 415 and 422 mean that the message will never be accepted; after any other answer, or none, it is sent again.
Of an answer's body at most 4 kB are read, and a request with its answer takes at most ``TIMEOUT_S``.
"""

from __future__ import annotations

import base64
import http.client
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec

from overflight import __version__
from overflight.runtime.deadline import DeadlineSocket
from overflight.runtime.links.message import LinkDown, Message, Refused
from overflight.runtime.links.message import brief as shorten
from overflight.runtime.links.tls import NO_FILES, TlsFiles, connecting_context

if TYPE_CHECKING:
    from http.client import HTTPConnection

TIMEOUT_S = 10.0  # of connecting, and of a request with its whole answer
MAX_ANSWER_BYTES = 4096
MAX_REASON = 80
NEVER = {400, 413, 415, 422}


class WebhookLink:
    """A web server, with one connection that is kept open."""

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
        self._socket: DeadlineSocket | None = None

    def open(self) -> None:
        """Connect."""
        if self._secure:
            context = connecting_context(self._tls)
            self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            self._connection.connect()
            self._connection.sock = self._socket = DeadlineSocket(self._connection.sock, TIMEOUT_S)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise LinkDown(f"{self._host}: {error or type(error).__name__}") from error

    def check(self) -> None:
        """Do nothing: web servers close idle connections, and the next POST opens another."""

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
        if self._connection is not None and self._connection.sock is None:
            self.open()  # the server closed the connection after its last answer, or its answer was left unread
        if self._connection is None or self._socket is None:
            raise LinkDown(f"{self._host}: not connected")
        self._socket.until_s = time.monotonic() + TIMEOUT_S
        try:
            self._connection.request("POST", self._path, payload, headers)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise LinkDown(f"{self._host}: {str(error)[:MAX_REASON] or type(error).__name__}") from error
        self._read(answer)
        said = f"{self._host}: {answer.status} {answer.reason[:MAX_REASON]}"
        if answer.status in NEVER:
            raise Refused(said)
        if not 200 <= answer.status < 300:
            raise LinkDown(said)

    def _read(self, answer: http.client.HTTPResponse) -> None:
        """Read a short body, so that the connection can be used again; close it where the body is long or late."""
        try:
            left = len(answer.read(MAX_ANSWER_BYTES + 1)) > MAX_ANSWER_BYTES
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: a chunk of negative length
            left = True
        if left and self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._socket = None
