"""Redacting: what may be shown of an address that holds credentials."""

from __future__ import annotations

import re
from urllib.parse import quote

HIDDEN = "***"
_ANYWHERE = (
    "token|secret|password|passwd|passphrase|signature|credential|credentials|apikey|api-key|api_key|accesskey|"
    "sharedkey|secretkey|privatekey|streamid|streamkey|stream-key|stream_key|authorization|bearer|jwt"
)
_WHOLE = "id|pw|pwd|pass|user|username|login|auth|key|psk|pin|session|sid|sig|sas|code|u|p"
# A name that says "secret" anywhere in it, or is one of the short ones as a whole word; then its value.
_SECRET = re.compile(
    rf"(?i)(?<![\w-])((?:[\w.-]{{0,40}}?(?:{_ANYWHERE})|(?:[\w.-]{{0,40}}[_.-])?(?:{_WHOLE}))=)"
    r"(\"[^\"]*\"|'[^']*'|[^&\s]+)"
)
# A query, or the options of a link: an @ in them is no end of credentials.
_QUERY = re.compile(r"\?[\w.\[\]-]+(?:=|&|$)|#(?:rate|stale|type|accept|ca|cert|key)=")
# As recorders have it in the path: /user=NAME_password=WORD_channel=1.sdp, parted by _ or & or ;.
_IN_PATH = re.compile(r"(?i)(?<![a-z])(user|username|login|password|passwd|pwd|pass|pw)=.{0,256}?(?=[&_;][a-z]+=|$)")
_RUN = re.compile(r"[A-Za-z0-9]{12,}")
_UUID = re.compile(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_BOT = re.compile(r"bot\d+:")  # as in https://api.telegram.org/bot123:SECRET/sendMessage
_LOCAL = {"test", "csi", "file", "v4l2"}
_KEY_LAST = {"rtmp", "rtmps", "rtmpt", "rtmpe"}  # the last part of the path is the stream key
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]{0,20}://[^\s\"'<>]+")


def redact(where: str) -> str:
    """Return an address as it may be shown, logged and recorded: credentials replaced, wherever they are."""
    scheme, _, rest = where.partition("://")
    if scheme.lower() == "gst":
        where = f"{scheme}://{_ADDRESS.sub(lambda found: _redact_address(found[0]), rest)}"
        return _SECRET.sub(rf"\1{HIDDEN}", where) if "=" in where else where
    return _redact_address(where)


def _redact_address(where: str) -> str:
    """Redact an address that is no pipeline, whatever it contains: no recursion, however deep addresses are nested."""
    scheme, separator, rest = where.partition("://")
    if separator and scheme.lower() not in _LOCAL:
        return f"{scheme}://{_redact_rest(scheme.lower(), rest)}"
    return _SECRET.sub(rf"\1{HIDDEN}", where) if "=" in where else where


def redact_text(text: str) -> str:
    """Return free text, such as another library's message, with every address in it redacted."""
    return _ADDRESS.sub(lambda found: redact(found[0]), text) if "://" in text else text


def quote_credentials(uri: str) -> str:
    """Percent-encode what a user name or password has that an address may not: ``mqtt://me:a#b/c@host``."""
    scheme, separator, rest = uri.partition("://")
    at = _credentials_end(rest)
    if not separator or at <= 0:
        return uri
    return f"{scheme}://{quote(rest[:at], safe=':%!$&()*+,;=~', errors='surrogateescape')}{rest[at:]}"


def _credentials_end(rest: str) -> int:
    """Return where the ``@`` after user name and password is, -1 without one.

    A password may hold ``/``, ``?``, ``#`` and ``@`` though it should be encoded; so the last ``@`` counts, except
    in a query, and except in the path of an address that has no ``:`` before it and thus no password.
    """
    query = _QUERY.search(rest)
    at = rest.rfind("@", 0, query.start() if query else len(rest))
    return -1 if at > 0 and "/" in rest[:at] and ":" not in rest[:at] else at


def _redact_rest(scheme: str, rest: str) -> str:
    at = _credentials_end(rest)
    shown = f"{HIDDEN}@" if at > 0 else rest[: at + 1]
    place, mark, query = _split(rest[at + 1 :])
    host, *parts = place.split("/")
    if at < 0 and not _is_host(host):
        return HIDDEN  # a password cut off before its @
    if scheme in _KEY_LAST and len(parts) > 1 and parts[-1]:
        parts[-1] = HIDDEN
    parts = [_IN_PATH.sub(rf"\1={HIDDEN}", part) for part in parts]
    shown += "/".join([host, *(HIDDEN if _is_token(part) else part for part in parts)])
    return shown + mark + "&".join(_redact_option(option) for option in query.split("&"))


def _split(rest: str) -> tuple[str, str, str]:
    """Split at the first ``?`` or ``#``."""
    found = re.search(r"[?#]", rest)
    return (rest, "", "") if found is None else (rest[: found.start()], found[0], rest[found.end() :])


def _is_host(text: str) -> bool:
    """Whether text is HOST or HOST:PORT; the port may be missing, an IPv6 address is in brackets."""
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    return not colon or (
        (not port or (port.isdigit() and len(port) <= 5)) and (":" not in host or host.startswith("["))
    )


def _redact_option(option: str) -> str:
    name, equals, value = option.partition("=")
    if not equals:
        return HIDDEN if _is_token(option) else option
    return f"{name}={HIDDEN}" if value and (_SECRET.match(option) or _is_token(value)) else option


def _is_token(text: str) -> bool:
    """Whether text looks made by a machine to be kept secret: a long run of letters and digits mixed."""
    if _UUID.search(text) or _BOT.match(text):
        return True
    runs = (run[0] for run in _RUN.finditer(text))
    return any(_mixed(run) for run in runs)


def _mixed(run: str) -> bool:
    kinds = (any(map(str.isdigit, run)), any(map(str.islower, run)), any(map(str.isupper, run)))
    return sum(kinds) > 1
