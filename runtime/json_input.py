"""Decoding JSON that came from outside: whatever is wrong with it is one kind of error."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode_json(raw: bytes | str, type: type[T]) -> T:  # noqa: A002 - msgspec's own name for it
    """Decode JSON as ``type``. Raises msgspec.DecodeError, also for text that is not UTF-8 and for deep nesting.

    msgspec itself does not catch a UnicodeDecodeError of a key or a RecursionError.
    """
    try:
        return msgspec.json.decode(raw, type=type)
    except (UnicodeError, RecursionError, ValueError) as error:
        if isinstance(error, msgspec.DecodeError):
            raise
        raise msgspec.DecodeError(f"JSON is malformed: {error}") from error
