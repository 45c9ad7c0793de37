"""The guard in front of every request: host, origin, token, size, and the headers that bind the page."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from overflight.station.serve.endpoint import MOST_JSON_BYTES, MOST_REVIEW_BYTES
from overflight.station.serve.shapes import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/", "/favicon.ico", "/api/session", "/healthz")  # what a browser needs to ask for the token
WRONG_TOKEN_S = 0.5
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware. ``names`` are host names besides loopback and addresses; ``token`` None asks for none."""

    def __init__(
        self, app: ASGIApp, *, names: tuple[str, ...], port: int, token: str | None, upload_bytes: int
    ) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}
        self._token = token
        self._cookie = cookie_name(port)
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request here, pass the others on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin1").lower(): value.decode("latin1") for key, value in scope["headers"]}
        raw = {"/api/uploads": self._upload_bytes, "/api/review/merge": MOST_REVIEW_BYTES}
        most = raw.get(scope["path"], MOST_JSON_BYTES)
        refused = self._refused(scope, headers, most)
        if refused is not None:
            if refused[0] == 401 and (headers.get("authorization") or headers.get("cookie")):
                await asyncio.sleep(WRONG_TOKEN_S)
            await _answer(*refused, _with_headers(send))
            return
        await self._app(scope, _bounded(receive, most), _with_headers(send))

    def allows(self, token: str) -> bool:
        """Whether this is the server's token."""
        return self._token is None or hmac.compare_digest(token.encode(), self._token.encode())

    def _refused(self, scope: Scope, headers: Mapping[str, str], most: int) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        if not self._known(host):
            return 421, "host", f"host {host[:80]!r} is not this server's; start it with --name HOST"
        if scope["method"] not in {"GET", "HEAD"} and not _same_origin(headers, host):
            return 403, "origin", "a request from another site; open the page itself"
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return 403, "origin", "a request from another site; open the page itself"
        if not self._passes(scope["path"], headers):
            return 401, "token", "this server needs its token; it was printed when the server started"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > most:
            return 413, "size", f"{length[:20]} bytes; at most {most} are taken"
        return None

    def _known(self, host: str) -> bool:
        """Whether the Host header names this server: an address, or a name that no attacker's DNS can take."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
            urlsplit(f"//{host}").port  # noqa: B018 - raises for a port that is none
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _passes(self, path: str, headers: Mapping[str, str]) -> bool:
        if self._token is None or path in OPEN or path.startswith("/assets/"):
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.allows(token.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and self.allows(cookie.value)


def cookie_name(port: int) -> str:
    """Return the cookie's name: browsers give one host's cookies to every port, and two servers may run."""
    return f"overflight-{port}"


def _same_origin(headers: Mapping[str, str], host: str) -> bool:
    """Whether a request that changes something comes from our page, or from a program (which sends no Origin)."""
    if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _bounded(receive: Receive, most: int) -> Receive:
    """Count a body that does not tell its length, and end it where it is too long."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > most else message

    return counted


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {key.lower() for key, _ in message["headers"]}
            added = [(key.encode(), value.encode()) for key, value in _HEADERS.items() if key.encode() not in known]
            if b"cache-control" not in known:
                added.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sent


async def _answer(status: int, code: str, error: str, send: Send) -> None:
    body = msgspec.json.encode(Problem(error, code))
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
