"""The errors that reach a user: what was wrong, what was expected, what to do.

OverflightError            exit 1: it failed
├── BundleError            a bundle is torn, foreign or of another schema
├── BankError              a label bank cannot be read
├── SourceError            frames cannot be read
│   └── NoSourceError      exit 2: the file that was named does not exist
├── EngineError            an engine failed or answered nonsense
├── SignatureError         content is not signed by a trusted key, or was changed after signing
├── UsageError             exit 2: an argument is wrong, or a file that it names does not exist
└── MissingError           exit 3: a device, a library or a part of the installation is missing
"""

from __future__ import annotations


class OverflightError(Exception):
    """It failed; the message is one line that says what to do."""

    exit_code = 1


class BundleError(OverflightError):
    """A bundle is torn, foreign or of another schema."""


class BankError(OverflightError):
    """A label bank cannot be read, or is not what it says."""


class SourceError(OverflightError):
    """Frames cannot be read from a source."""


class NoSourceError(SourceError):
    """A file that was named does not exist."""

    exit_code = 2


class EngineError(OverflightError):
    """An engine could not be opened, failed, or answered nonsense."""


class SignatureError(OverflightError):
    """Content is not signed by a trusted key, was changed after signing, is too old, or is meant for others."""


class UsageError(OverflightError):
    """The request itself is wrong: an argument, a file that does not fit another."""

    exit_code = 2


class MissingError(OverflightError):
    """A device, a library or a part of the installation is not there."""

    exit_code = 3


def missing_extra(library: str, extra: str) -> MissingError:
    """Say which extra brings a library that is not installed."""
    return MissingError(f"{library} is not installed; run: pip install 'overflight[{extra}]'")
