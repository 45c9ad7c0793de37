"""The log of a flight: one JSON object a line on standard error, for journald and for people with jq."""

from __future__ import annotations

import sys
import time
from typing import Any

import msgspec

from overflight.runtime.paths import printable
from overflight.runtime.redact import redact_text


def say(what: str, **facts: Any) -> None:
    """Write one line: when (UTC, seconds), what, and the facts, with addresses redacted.

    Never raises: a closed pipe does not end a flight.
    """
    shown = {name: printable(redact_text(fact)) if isinstance(fact, str) else fact for name, fact in facts.items()}
    line = {"utc_s": round(time.time(), 3), "what": what, **shown}
    try:
        sys.stderr.buffer.write(msgspec.json.encode(line, enc_hook=str) + b"\n")
        sys.stderr.buffer.flush()
    except (OSError, ValueError):
        return
