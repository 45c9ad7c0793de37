"""An RTSP session (RFC 2326): described, set up over TCP or UDP, played, and kept alive."""

from __future__ import annotations

import base64
import re
import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5, sha256
from secrets import randbits, token_hex
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urljoin, urlsplit

from overflight.runtime.errors import SourceError
from overflight.runtime.sources.rtsp.rtp import receiver_report

if TYPE_CHECKING:
    from collections.abc import Iterator

Transport = Literal["tcp", "udp"]
Channel = Literal["rtp", "rtcp"]

_REPORT_S = 5.0
_PAUSES = 3.0  # of the longest pause between packets so far: a stream of one picture in five seconds is alive
_FORGET = 0.999  # a pause counts less with every packet
_MOST_REPLY = 1 << 20
_RECEIVE_BYTES = 2 << 20  # a burst of a keyframe
_REDIRECTS = 3
_UNSUPPORTED_TRANSPORT = 461


@dataclass(frozen=True)
class Media:
    """The video of a session: its encoding's name in capitals, its clock and parameters.

    ``control`` is where it is set up, ``whole`` where the session is played.
    """

    encoding: str
    clock_hz: int
    parameters: tuple[bytes, ...]
    control: str
    whole: str


class RtspError(SourceError):
    """The server refused; ``status`` is its code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class RtspSession:
    """One connection. Every wait is bounded by ``open_s`` until the first packet and by ``read_s`` from then on."""

    def __init__(self, address: str, name: str, *, open_s: float, read_s: float) -> None:
        self._name, self._open_s, self._read_s = name, open_s, read_s
        self._sequence = 0
        self._session, self._challenge = "", ""
        self._keep_alive_s = 25.0
        self._udp: list[socket.socket] = []
        self._server_ports: tuple[int, int] | None = None
        self._sender, self._own = 0, randbits(32)
        self._buffer = b""
        self._channel = 0
        self._connect(address)

    def describe(self) -> Media:
        """Ask what there is. Raises RtspError where the server refuses, SourceError where there is no video."""
        for _ in range(_REDIRECTS):
            reply = self._request("DESCRIBE", self._url, {"Accept": "application/sdp"})
            if reply.status not in {301, 302, 303, 307}:
                break
            self.close()
            self._connect(urljoin(self._url, reply.header("location")))
        self._check(reply)
        base = reply.header("content-base") or reply.header("content-location") or self._url
        return _video(reply.body.decode(errors="replace"), base, self._name)

    def play(self, media: Media, transport: Transport) -> None:
        """Set the video up and start it. Raises RtspError with status 461 where the transport is not offered."""
        if transport == "tcp":
            wanted = "RTP/AVP/TCP;unicast;interleaved=0-1"
        else:
            ports = self._bind()
            wanted = f"RTP/AVP;unicast;client_port={ports[0]}-{ports[1]}"
        reply = self._request("SETUP", media.control, {"Transport": wanted})
        self._check(reply)
        self._session, _, rest = reply.header("session").partition(";")
        if found := re.search(r"timeout=(\d+)", rest):
            self._keep_alive_s = max(2.0, int(found[1]) / 2.5)
        if found := re.search(r"server_port=(\d+)-(\d+)", reply.header("transport")):
            self._server_ports = (int(found[1]), int(found[2]))
            for one, port in zip(self._udp, self._server_ports, strict=True):  # opens the way back through a firewall
                one.sendto(b"\x80\x00" + bytes(10), (self._host, port))
        if found := re.search(r"interleaved=(\d+)", reply.header("transport")):
            self._channel = int(found[1])  # a server may choose others than were asked for
        self._check(self._request("PLAY", media.whole, {"Range": "npt=0.000-"}))

    def packets(self) -> Iterator[tuple[Channel, bytes, int]]:
        """Yield packets with their time of arrival, until the server ends. Raises SourceError when it falls silent."""
        reported_s = alive_s = time.monotonic()
        heard_s, patience_s, pause_s = alive_s, self._open_s, 0.0
        while True:
            now_s = time.monotonic()
            if now_s - heard_s > patience_s:
                raise SourceError(f"{self._name}: silent for {patience_s:g} s; check the camera and the link")
            if now_s - alive_s > self._keep_alive_s:
                self._send("GET_PARAMETER", self._url, {})
                alive_s = now_s
            if now_s - reported_s > _REPORT_S:
                self._report()
                reported_s = now_s
            for channel, raw, arrived_ns in self._received():
                if channel == "rtcp" and len(raw) >= 8:
                    self._sender = int.from_bytes(raw[4:8], "big")
                elif channel == "rtp":
                    came_s = arrived_ns / 1e9
                    pause_s = max(pause_s * _FORGET, came_s - heard_s) if patience_s != self._open_s else 0.0
                    heard_s, patience_s = came_s, max(self._read_s, _PAUSES * pause_s)
                yield channel, raw, arrived_ns

    def close(self) -> None:
        """Say goodbye and let the sockets go; safe to call twice."""
        if self._session:
            self._session, session = "", self._session
            with suppress(SourceError):
                self._send("TEARDOWN", self._url, {"Session": session})
        for one in (*self._udp, self._socket):
            one.close()
        self._udp = []

    def _connect(self, address: str) -> None:
        parts = urlsplit(address)
        self._host = parts.hostname or ""
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        tls = parts.scheme == "rtsps"
        try:
            port = parts.port or (322 if tls else 554)
            self._socket = socket.create_connection((self._host, port), self._open_s)
        except ValueError as error:
            raise SourceError(f"{self._name}: not an address; write % codes for @ : / ? # in a password") from error
        except ConnectionRefusedError as error:
            raise SourceError(
                f"{self._name}: no server on this port; check the address and that the camera is on"
            ) from error
        except TimeoutError as error:
            raise SourceError(
                f"{self._name}: no answer in {self._open_s:g} s; check the address and the network"
            ) from error
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror or error}; check the address and the network") from error
        if tls:
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=self._host)
        host = f"[{self._host}]" if ":" in self._host else self._host
        query = f"?{parts.query}" if parts.query else ""
        self._url = f"{parts.scheme}://{host}:{port}{parts.path}{query}"
        self._buffer = b""

    def _bind(self) -> tuple[int, int]:
        family = self._socket.family
        for _ in range(20):
            first = socket.socket(family, socket.SOCK_DGRAM)
            first.bind(("", 0))
            port = first.getsockname()[1]
            second = socket.socket(family, socket.SOCK_DGRAM)
            try:
                if port % 2:
                    raise OSError
                second.bind(("", port + 1))
            except OSError:
                first.close()
                second.close()
                continue
            first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            self._udp = [first, second]
            return port, port + 1
        raise SourceError(f"{self._name}: no two free UDP ports; use TCP")

    def _received(self) -> Iterator[tuple[Channel, bytes, int]]:
        """Wait up to a quarter of a second, and yield what has come."""
        yield from self._interleaved()
        readable, _, _ = select.select([self._socket, *self._udp], [], [], 0.25)
        arrived_ns = time.monotonic_ns()
        for one, channel in zip(self._udp, ("rtp", "rtcp"), strict=False):
            if one in readable:
                yield ("rtp" if channel == "rtp" else "rtcp"), one.recv(65536), arrived_ns
        if self._socket in readable:
            self._fill()
            yield from self._interleaved()

    def _interleaved(self) -> Iterator[tuple[Channel, bytes, int]]:
        arrived_ns = time.monotonic_ns()
        at, buffer = 0, self._buffer
        while at < len(buffer):
            if buffer[at] == 0x24:
                if len(buffer) < at + 4:
                    break
                end = at + 4 + int.from_bytes(buffer[at + 2 : at + 4], "big")
                if len(buffer) < end:
                    break
                yield ("rtp" if buffer[at + 1] == self._channel else "rtcp"), buffer[at + 4 : end], arrived_ns
                at = end
            else:  # the reply to a keep-alive
                end = buffer.find(b"\r\n\r\n", at)
                if end < 0:
                    break
                length = re.search(rb"(?i)content-length:\s*(\d+)", buffer[at:end])
                at = end + 4 + (int(length[1]) if length else 0)
        self._buffer = buffer[at:]

    def _fill(self) -> None:
        try:
            chunk = self._socket.recv(1 << 18)
        except TimeoutError as error:
            raise SourceError(f"{self._name}: no answer in {self._open_s:g} s; check that the camera is on") from error
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror or error}; check the link") from error
        if not chunk:
            raise SourceError(f"{self._name}: the server closed the connection; check the camera")
        self._buffer += chunk

    def _report(self) -> None:
        raw = receiver_report(self._own, self._sender)
        try:
            if self._udp and self._server_ports:
                self._udp[1].sendto(raw, (self._host, self._server_ports[1]))
            elif not self._udp:
                self._socket.sendall(bytes([0x24, self._channel + 1]) + len(raw).to_bytes(2, "big") + raw)
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror or error}; check the link") from error

    def _send(self, method: str, url: str, headers: dict[str, str]) -> None:
        self._sequence += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._sequence}", "User-Agent: overflight"]
        if self._session:
            lines.append(f"Session: {self._session}")
        if self._challenge:
            lines.append(f"Authorization: {_authorization(self._challenge, method, url, self._user, self._password)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror or error}; check the link") from error

    def _request(self, method: str, url: str, headers: dict[str, str]) -> _Reply:
        self._send(method, url, headers)
        reply = self._reply()
        if reply.status == 401 and not self._challenge and self._user:
            self._challenge = reply.strongest_challenge()
            self._send(method, url, headers)
            reply = self._reply()
        return reply

    def _reply(self) -> _Reply:
        deadline_s = time.monotonic() + self._open_s
        while True:
            while self._buffer.startswith(b"$") and len(self._buffer) >= 4:  # pictures that came before the reply
                end = 4 + int.from_bytes(self._buffer[2:4], "big")
                if len(self._buffer) < end:
                    break
                self._buffer = self._buffer[end:]
            found = _Reply.parse(self._buffer)
            if found is not None:
                reply, self._buffer = found
                return reply
            foreign = len(self._buffer) > 4 and not self._buffer.startswith((b"RTSP/", b"$"))
            if foreign or len(self._buffer) > _MOST_REPLY or time.monotonic() > deadline_s:
                raise SourceError(
                    f"{self._name}: what answers there does not speak RTSP; check the address and the port"
                )
            self._fill()

    def _check(self, reply: _Reply) -> None:
        if reply.status < 300:
            return
        advice = {
            401: "wrong user name or password"
            if self._user
            else "asks for a user name and password: rtsp://USER:PASSWORD@…",
            403: "this user may not see this stream; check the camera's users",
            404: "the server has nothing under this path; check the path",
            454: "the server has forgotten the session; connecting again",
        }.get(reply.status, f"the server refused: {reply.status} {reply.reason}")
        raise RtspError(f"{self._name}: {advice}", reply.status)


@dataclass(frozen=True)
class _Reply:
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> tuple[_Reply, bytes] | None:
        end = raw.find(b"\r\n\r\n")
        first, *lines = raw[: max(0, end)].decode(errors="replace").split("\r\n")
        found = re.match(r"RTSP/1\.\d (\d{3}) ?(.*)", first)
        if end < 0 or found is None:
            return None
        headers = tuple(
            (name.strip().lower(), value.strip())
            for name, colon, value in (line.partition(":") for line in lines)
            if colon
        )
        length = next((int(value) for name, value in headers if name == "content-length" and value.isdigit()), 0)
        if len(raw) < end + 4 + length:
            return None
        return cls(int(found[1]), found[2][:80], headers, raw[end + 4 : end + 4 + length]), raw[end + 4 + length :]

    def header(self, name: str) -> str:
        return next((value for one, value in self.headers if one == name), "")

    def strongest_challenge(self) -> str:
        offered = [value for name, value in self.headers if name == "www-authenticate"]
        return max(offered, key=lambda one: (one.lower().startswith("digest"), "SHA-256" in one), default="")


def _authorization(challenge: str, method: str, url: str, user: str, password: str) -> str:
    if not challenge.lower().startswith("digest"):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    given = {
        name.lower(): quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', challenge)
    }
    algorithm = given.get("algorithm", "MD5")

    def digest(text: str) -> str:  # the protocol's choice of hash, not ours
        return (sha256 if algorithm.upper().startswith("SHA-256") else md5)(text.encode()).hexdigest()

    secret, asked = digest(f"{user}:{given.get('realm', '')}:{password}"), digest(f"{method}:{url}")
    nonce = given.get("nonce", "")
    parts = {"username": user, "realm": given.get("realm", ""), "nonce": nonce, "uri": url}
    if "auth" in given.get("qop", "").split(","):
        client = token_hex(8)
        parts |= {"cnonce": client, "response": digest(f"{secret}:{nonce}:00000001:{client}:auth:{asked}")}
        suffix = ", qop=auth, nc=00000001"
    else:
        parts["response"] = digest(f"{secret}:{nonce}:{asked}")
        suffix = ""
    if "opaque" in given:
        parts["opaque"] = given["opaque"]
    named = f", algorithm={algorithm}" if "algorithm" in given else ""
    return "Digest " + ", ".join(f'{name}="{value}"' for name, value in parts.items()) + suffix + named


def _video(sdp: str, base: str, name: str) -> Media:
    """Read the first video of a session description."""
    session, *medias = re.split(r"(?m)^(?=m=)", sdp)
    described = next((one for one in medias if one.startswith("m=video")), None)
    if described is None:
        kinds = ", ".join(one[2:].partition(" ")[0].strip() for one in medias) or "nothing"
        raise SourceError(f"{name}: carries no video, only {kinds}; check the path")
    formats = described.splitlines()[0].split()[3:4]
    if not formats:
        raise SourceError(f"{name}: its description of the video names no format; check the camera")
    payload = formats[0]
    mapped = re.search(rf"(?m)^a=rtpmap:{re.escape(payload)} ([\w.+-]+)/([1-9]\d{{0,8}})", described)
    encoding, clock_hz = (
        (mapped[1].upper(), int(mapped[2])) if mapped else ({"26": "JPEG"}.get(payload, payload), 90_000)
    )
    control = re.search(r"(?m)^a=control:(\S+)", described)
    whole = re.search(r"(?m)^a=control:(\S+)", session)
    if whole and "://" in whole[1]:
        base = whole[1]
    where = control[1] if control else base
    if "://" not in where:  # appended, as cameras mean it; urljoin would lose a query
        where = base if where == "*" else f"{base.rstrip('/')}/{where}"
    sets = re.findall(r"sprop-(?:parameter-sets|vps|sps|pps)=([^;\s]+)", described)
    parameters = []
    for text in ",".join(sets).split(","):
        try:
            parameters.append(base64.b64decode(text + "=" * (-len(text) % 4)))
        except ValueError:
            continue
    return Media(encoding, clock_hz, tuple(one for one in parameters if one), where, base)
