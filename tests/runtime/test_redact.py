"""Redacting: no credential is shown, wherever it stands in an address, and the rest can still be read."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.runtime.errors import UsageError
from overflight.runtime.links.address import LinkAddress
from overflight.runtime.redact import quote_credentials, redact, redact_text


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("rtsp://user:pa#ss@10.0.0.1/main", "rtsp://***@10.0.0.1/main"),
        ("rtsp://user:pa/ss@10.0.0.1/main", "rtsp://***@10.0.0.1/main"),
        ("rtsp://user:pa?ss@10.0.0.1/main", "rtsp://***@10.0.0.1/main"),
        ("rtsp://user:p@a/s?s#x@10.0.0.1:554/main", "rtsp://***@10.0.0.1:554/main"),
        ("rtsp://user:pa ss@10.0.0.1/main", "rtsp://***@10.0.0.1/main"),
        ("rtsp://h/user=me_password=my_word_channel=1_stream=0.sdp", "rtsp://h/user=***_password=***_channel=1_stream=0.sdp"),
        ("rtsp://h:554/user=me&password=word&channel=1&stream=0.sdp?real", "rtsp://h:554/user=***&password=***&channel=1&stream=0.sdp?real"),
        ("rtsp://h/user=me_password=word", "rtsp://h/user=***_password=***"),
        ("mqtt://user:pa", "mqtt://***"),
        ("gst://rtspsrc location=rtsp://a:b/c@10.0.0.1/x", "gst://rtspsrc location=rtsp://***@10.0.0.1/x"),
        ("srt://host:9000?streamid=#!::r=live,u=me,s=word", "srt://host:9000?streamid=***"),
        ("srt://:9000?mode=listener&passphrase=word", "srt://:9000?mode=listener&passphrase=***"),
        ("rtmp://a.example/live2/abcd-1234-efgh", "rtmp://a.example/live2/***"),
        ("https://hooks.example/services/T0/B0/abcd1234EFGH5678ijkl", "https://hooks.example/services/T0/B0/***"),
        ("https://api.example/bot123:AbCdEf/send", "https://api.example/***/send"),
        ("https://h/s/550e8400-e29b-41d4-a716-446655440000", "https://h/s/***"),
        ("https://h/x?access_token=abc&channel=1&accessToken=z", "https://h/x?access_token=***&channel=1&accessToken=***"),
        ("https://h/x?abcd1234EFGH5678", "https://h/x?***"),
        ("https://h/x?sig=abc#token=def", "https://h/x?sig=***"),
    ],
)  # fmt: skip
def test_a_credential_is_hidden(where: str, shown: str) -> None:
    """In user info, query, path, stream id and fragment."""
    assert redact(where) == shown


@pytest.mark.parametrize(
    "where",
    [
        "rtsp://10.0.0.1:554/cam/realmonitor?channel=1&subtype=0",
        "rtsp://10.0.0.1/live@main",
        "https://h/videos/flight-2024-05-01.mp4",
        "http://[::1]:8080/x",
        "udp://@:5600",
        "mqtts://host:8883/of#ca=/etc/me@home.pem&rate=10",
        "udp://@239.1.1.1:5600",
        "test://?fps=10&faults=torn@3",
        "mavlink:udpin:0.0.0.0:14550",
        "/dev/video0",
    ],
)
def test_what_is_no_credential_stays(where: str) -> None:
    """An operator must recognise the camera."""
    assert redact(where) == where


WORD = st.text(string.ascii_letters + string.digits + "#/?@%!$&'()*+,;=:~^{}|\\", min_size=4, max_size=20).map(
    "Zq".__add__
)


@given(WORD, st.sampled_from(["rtsp", "mqtt", "https", "rtmp", "srt"]))
def test_no_password_is_shown(password: str, scheme: str) -> None:
    """Whatever characters it has, encoded or not."""
    shown = redact(f"{scheme}://operator:{password}@camera.local/main")
    assert password not in shown
    assert "operator" not in shown


@given(WORD)
def test_no_password_is_in_a_links_name_or_error(password: str) -> None:
    """An address that is refused is not shown with its password either."""
    for uri in (f"mqtt://operator:{password}@broker.local/of", f"x://o:{password}@h"):
        try:
            said = LinkAddress.parse(uri).name
        except UsageError as error:
            said = str(error)
        assert password not in said


@pytest.mark.parametrize("password", ["a#b", "a/b", "a?b", "a@b"])
def test_a_password_that_is_not_encoded_is_understood(password: str) -> None:
    """The address means what it says: host and prefix are found behind the last @."""
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(LinkAddress.parse(f"mqtt://me:{password}@broker.local/of#rate=100").uri)
    assert (parts.hostname, parts.path, unquote(parts.password or "")) == ("broker.local", "/of", password)
    assert quote_credentials("mqtt://me:a%23b@h/of") == "mqtt://me:a%23b@h/of"


def test_addresses_in_text_are_redacted() -> None:
    """Another library's message may quote the whole address."""
    said = redact_text("cannot open rtsp://u:p@h/x: refused; see 'https://h/?token=1'")
    assert said == "cannot open rtsp://***@h/x: refused; see 'https://h/?token=***'"


def test_pipelines_within_pipelines_take_no_recursion() -> None:
    """An address of thousands of nested pipelines is redacted like any other."""
    shown = redact("gst:///" * 5000 + "rtsp://user:hunter2@camera/x")
    assert "hunter2" not in shown
