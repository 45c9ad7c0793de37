"""The terms of a signature: what its trusted comment says about counter, target, expiry and series.

The comment is minisign's own form, ``key:value`` pairs between tabs:
``timestamp:1764091844\tfile:scenes.safetensors\thashed\tcounter:1764091844123\ttarget:*\texpires:2027-11-25T00:00:00Z``.
"""

from __future__ import annotations

import re
import socket
import time
from datetime import datetime, timedelta, timezone
from fnmatch import fnmatchcase

import msgspec

from overflight.runtime.errors import SignatureError, UsageError

_WORD = re.compile(r"[A-Za-z0-9._*?\[\]-]{1,64}")
_DURATION = re.compile(r"(\d{1,6})([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_MAX_COUNTER = (1 << 63) - 1


class Terms(msgspec.Struct, frozen=True):
    """What a signature allows.

    ``counter`` only grows within a ``series``: content with a lower counter than the last accepted one is refused.
    ``target`` is the name of an aircraft or a pattern such as ``survey-*``. ``signed_utc_s`` is the signer's clock.
    """

    counter: int
    target: str = "*"
    expires_utc_s: float | None = None
    series: str | None = None
    signed_utc_s: float | None = None

    @classmethod
    def make(
        cls, *, counter: int | None = None, target: str = "*", expires: str = "365d", series: str | None = None
    ) -> Terms:
        """Make the terms of a new signature; the counter is the time in milliseconds when left out. Raises UsageError.

        ``expires`` is a duration (``12h``, ``30d``, ``8w``), a date (``2027-11-25``) or ``never``.
        """
        now_s = time.time()
        for option, value in (("--target", target), ("--series", series)):
            if value is not None and not _WORD.fullmatch(value):
                raise UsageError(f"{option} {value!r}: expected at most 64 letters, digits, dots, dashes or * ?")
        if counter is not None and not 0 <= counter <= _MAX_COUNTER:
            raise UsageError(f"--counter {counter}: expected 0 to {_MAX_COUNTER}")
        return cls(
            int(now_s * 1000) if counter is None else counter, target, _expiry(expires, now_s), series, int(now_s)
        )

    @classmethod
    def parse(cls, comment: str, *, source: str) -> Terms:
        """Read a trusted comment. Raises SignatureError.

        A signature by minisign itself names no counter but the time of signing, which then counts.
        """
        pairs: dict[str, str] = {}
        for part in comment.split("\t"):
            name, found, value = part.partition(":")
            if found and pairs.setdefault(name, value) != value:
                raise SignatureError(f"{source}: the trusted comment names {name} twice; sign it again")
        try:
            signed_s = int(pairs["timestamp"]) if "timestamp" in pairs else None
            if "counter" in pairs:
                counter = int(pairs["counter"])
            elif signed_s is not None:
                counter = signed_s * 1000
            else:
                raise SignatureError(
                    f"{source}: the trusted comment has neither counter nor timestamp, so that an old copy could be "
                    "replayed; sign it again with: overflight sign"
                )
            expires_s = _time(pairs["expires"]) if pairs.get("expires", "never") != "never" else None
        except (ValueError, OverflowError) as error:
            raise SignatureError(f"{source}: the trusted comment cannot be read ({error}); sign it again") from error
        if not 0 <= counter <= _MAX_COUNTER:
            raise SignatureError(f"{source}: counter {counter}; expected 0 to {_MAX_COUNTER}; sign it again")
        return cls(counter, pairs.get("target", "*"), expires_s, pairs.get("series"), signed_s)

    def comment(self, file: str) -> str:
        """Return the trusted comment of these terms for a file."""
        shown = re.sub(r"[^A-Za-z0-9._-]", "_", file)[:128]
        expires = "never" if self.expires_utc_s is None else _text(self.expires_utc_s)
        parts = [
            f"timestamp:{int(self.signed_utc_s or 0)}",
            f"file:{shown}",
            "hashed",
            f"counter:{self.counter}",
            f"target:{self.target}",
            f"expires:{expires}",
        ]
        if self.series is not None:
            parts.append(f"series:{self.series}")
        return "\t".join(parts)

    def check_target(self, names: frozenset[str], *, source: str) -> None:
        """Refuse what was signed for others. Raises SignatureError."""
        if not any(fnmatchcase(name, self.target) for name in names):
            raise SignatureError(
                f"{source}: signed for {self.target}, this machine is {' or '.join(sorted(names))}; sign it for this "
                "machine, or add its group to the file 'targets' next to the trusted keys"
            )

    def check_expiry(self, *, source: str) -> None:
        """Refuse what has expired. A clock that is behind the time of signing counts as that time."""
        now_s = max(time.time(), self.signed_utc_s or 0)
        if self.expires_utc_s is not None and now_s >= self.expires_utc_s:
            raise SignatureError(
                f"{source}: the signature expired at {_text(self.expires_utc_s)}, now is {_text(now_s)}; sign it again"
            )


def machine_names(more: frozenset[str] = frozenset()) -> frozenset[str]:
    """Return the names that a signature's target may mean: the host name and the groups in ``targets``."""
    return frozenset({socket.gethostname()}) | more


def _expiry(text: str, now_s: float) -> float | None:
    if text == "never":
        return None
    duration = _DURATION.fullmatch(text)
    try:
        if duration is not None:
            moment = datetime.fromtimestamp(now_s, timezone.utc)
            moment += timedelta(hours=int(duration[1]) * _HOURS[duration[2]])
        else:
            moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--expires {text!r}: expected 12h, 30d, 8w, a date such as 2027-11-25, or never") from error
    return moment.timestamp()


def _time(text: str) -> float:
    return datetime.strptime(text, _TIME).replace(tzinfo=timezone.utc).timestamp()


def _text(utc_s: float) -> str:
    return datetime.fromtimestamp(utc_s, timezone.utc).strftime(_TIME)
