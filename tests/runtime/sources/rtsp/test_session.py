"""RTSP sessions: what a server says, and every way in which it refuses."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from overflight.runtime.errors import SourceError, UsageError
from overflight.runtime.sources import network, open_source
from overflight.runtime.sources.rtsp.session import RtspSession, _authorization, _video

SDP = "v=0\r\no=- 0 0 IN IP4 0\r\n{session}m=video 0 RTP/AVP 96\r\na=rtpmap:96 {codec}/90000\r\n{media}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "OPEN_S", 1.0)


@pytest.mark.parametrize(
    ("session", "control", "base", "expected"),
    [
        ("", "a=control:track1\r\n", "rtsp://h/live/", "rtsp://h/live/track1"),
        ("", "a=control:track1\r\n", "rtsp://h/live?channel=1", "rtsp://h/live?channel=1/track1"),
        ("a=control:*\r\n", "a=control:rtsp://h:8/x/video\r\n", "rtsp://h/live", "rtsp://h:8/x/video"),
        ("a=control:rtsp://other/base\r\n", "a=control:v\r\n", "rtsp://h/live", "rtsp://other/base/v"),
        ("", "", "rtsp://h/live", "rtsp://h/live"),
    ],
)
def test_a_track_is_found_where_the_description_says(session: str, control: str, base: str, expected: str) -> None:
    """Relative, absolute, and not at all, as cameras write it."""
    assert _video(SDP.format(session=session, codec="H264", media=control), base, "x").control == expected


def test_parameter_sets_come_from_the_description() -> None:
    """H.264 has them in one field, H.265 in three; a broken one is passed over."""
    sps, pps = (base64.b64encode(part).decode().rstrip("=") for part in (b"\x67abc", b"\x68d"))
    media = f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sps},{pps};profile-level-id=42\r\n"
    assert _video(SDP.format(session="", codec="H264", media=media), "rtsp://h/", "x").parameters == (
        b"\x67abc",
        b"\x68d",
    )
    media = f"a=fmtp:96 sprop-vps={sps}; sprop-sps=%%; sprop-pps={pps}\r\n"
    found = _video(SDP.format(session="", codec="H265", media=media), "rtsp://h/", "x")
    assert found.encoding == "H265"
    assert b"\x67abc" in found.parameters


def test_the_session_is_played_where_the_server_keeps_it() -> None:
    """Under its own base, which may end in a slash that the address had not."""
    found = _video(SDP.format(session="", codec="H264", media="a=control:track1\r\n"), "rtsp://h/live/", "x")
    assert found.whole == "rtsp://h/live/"


def test_the_servers_choice_of_channels_counts() -> None:
    """Asked for 0 and 1 a server may send on 20 and 21; the reply to a keep-alive stands between."""
    session = object.__new__(RtspSession)
    session._channel = 20
    session._buffer = b"$\x14\0\2ab" + b"RTSP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx" + b"$\x15\0\1c" + b"$\x14\0\5d"
    assert [(channel, raw) for channel, raw, _ in session._interleaved()] == [("rtp", b"ab"), ("rtcp", b"c")]
    assert session._buffer == b"$\x14\0\5d"


def test_a_description_without_video_is_refused() -> None:
    """It says what there is."""
    with pytest.raises(SourceError, match="carries no video, only audio"):
        _video("v=0\r\nm=audio 0 RTP/AVP 0\r\n", "rtsp://h/", "x")


def test_digest_answers_as_the_standard_does() -> None:
    """RFC 2617's own example is of HTTP; the sum is the same."""
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5c"'
    found = _authorization(challenge, "GET", "/dir/index.html", "Mufasa", "Circle Of Life")
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in found
    assert 'opaque="5c"' in found


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """Return the port of a server that gives every connection the same answer."""
    servers: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def run() -> None:
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    return
                with client:
                    while client.recv(4096):
                        client.sendall(answer)

        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
        return int(server.getsockname()[1])

    yield serve
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize(
    ("credentials", "answer", "said"),
    [
        (
            "pilot:wrong@",
            b'RTSP/1.0 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n',
            "wrong user name or password",
        ),
        ("", b'RTSP/1.0 401 No\r\nWWW-Authenticate: Digest realm="x", nonce="1"\r\n\r\n', "asks for a user name"),
        ("", b"RTSP/1.0 404 Not Found\r\n\r\n", "nothing under this path"),
        ("", b"RTSP/1.0 453 Not Enough Bandwidth\r\n\r\n", "453 Not Enough Bandwidth"),
        ("", b"SSH-2.0-OpenSSH_9\r\n\r\n" * 4, "does not speak RTSP"),
        ("", b"", "no answer in 1 s"),
    ],
)
def test_each_refusal_is_named(answering: Callable[[bytes], int], credentials: str, answer: bytes, said: str) -> None:
    """A wrong password, a wrong path, a wrong server and a mute one are different things to mend."""
    where = f"rtsp://{credentials}127.0.0.1:{answering(answer)}/live"
    with pytest.raises(SourceError, match=said) as caught:
        next(iter(open_source(where).frames()))
    assert "wrong@" not in str(caught.value)


def test_nobody_there_is_named() -> None:
    """Refused at once."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match="no server on this port"):
        next(iter(open_source(f"rtsp://127.0.0.1:{port}/live").frames()))


def test_an_unknown_transport_is_refused() -> None:
    """By name."""
    with pytest.raises(UsageError, match="expected tcp or udp"):
        open_source("rtsp://127.0.0.1/live#transport=sctp")


@pytest.mark.parametrize("media", ["m=video\r\n", "m=\r\n", "m=video 0 RTP/AVP (96\r\na=rtpmap:(96 H264/0\r\n"])
def test_a_damaged_description_is_refused_or_read(media: str) -> None:
    """Missing fields, signs of a pattern, a clock of zero: one kind of error, or a clock that can be used."""
    try:
        found = _video("v=0\r\n" + media, "rtsp://h/live", "x")
    except SourceError:
        return
    assert found.clock_hz > 0
