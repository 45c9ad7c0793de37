"""Redacting: what may be shown of an address that holds credentials."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SECRET = re.compile(
    r"(?i)\b((?:user-|proxy-|rtsp-)?(?:id|pw|pwd|user|username|pass|passwd|password|passphrase|token|key|secret|auth)=)"
    r"(\"[^\"]*\"|'[^']*'|[^&\s]+)"
)


def redact(where: str) -> str:
    """Return a source as it may be shown and logged: user names and passwords replaced, wherever they stand."""
    scheme = where.partition("://")[0].lower()
    if "://" in where and scheme not in {"gst", "test", "csi"}:
        try:
            parts = urlsplit(where)
        except ValueError:
            return re.sub(r"//[^/@]*@", "//***@", where)
        if "@" in parts.netloc and parts.netloc.rpartition("@")[0]:
            where = where.replace(f"{parts.netloc.rpartition('@')[0]}@", "***@", 1)
    elif "://" in where:
        where = re.sub(r"//[^/@\s!]+@", "//***@", where)
    return _SECRET.sub(r"\1***", where) if "=" in where else where
