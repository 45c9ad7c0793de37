"""URLs: pictures in object stores and on web servers, listed and fetched through fsspec."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from overflight.runtime.errors import MissingError, OverflightError, SourceError, UsageError, missing_extra
from overflight.runtime.redact import redact, redact_text
from overflight.runtime.sources.image import SUFFIXES as STILLS
from overflight.station.bulk.records import Item

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 512 << 20  # of one picture; more is refused before it fills the disk
_CHUNK = 1 << 20
_MOST_CHARACTERS = 65_536  # of one line of a list


def is_url(where: str) -> bool:
    """Whether a source is an address and not a path."""
    scheme, separator, _ = where.partition("://")
    return bool(separator) and scheme.replace("+", "").replace("::", "").isalnum()


def read_list(path: Path) -> Iterator[str]:
    """Yield the lines of a list of URLs or paths; blank lines and lines that begin with ``#`` are left out."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            while line := file.readline(_MOST_CHARACTERS + 1):
                if len(line) > _MOST_CHARACTERS:
                    raise UsageError(
                        f"{path}: a line of more than {_MOST_CHARACTERS} characters; expected one URL a line"
                    )
                where = line.strip()
                if where and not where.startswith("#"):
                    yield where
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error.reason}); expected one URL or path a line") from error


def list_urls(where: str, source: str) -> Iterator[Item]:
    """Yield the pictures that a URL names: itself, what its pattern matches, or what is below it when it ends in /."""
    if where.endswith("/") or "*" in where:
        system, path = _system(where)
        try:
            found = system.glob(path) if "*" in where else system.find(path)
        except Exception as error:  # each file system has errors of its own
            raise SourceError(f"{redact(where)}: cannot be listed ({redact_text(str(error))})") from error
        for one in sorted(found):
            if PurePosixPath(one).suffix.lower() in STILLS and not PurePosixPath(one).name.startswith("."):
                yield _item(system.unstrip_protocol(one), source)
        return
    yield _item(where, source)


@contextmanager
def fetched(where: str) -> Iterator[Path]:
    """Bring a picture here as a temporary file. Raises SourceError, MissingError where a library is missing."""
    suffix = _suffix(where)
    with TemporaryDirectory(prefix="overflight-") as folder:
        path = Path(folder) / f"picture{suffix if suffix in STILLS else '.jpg'}"
        try:
            system, remote = _system(where)
            with system.open(remote, "rb") as source, path.open("wb") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    if target.tell() > MOST_BYTES:
                        raise SourceError(f"{redact(where)}: more than {MOST_BYTES >> 20} MiB; not a picture")
        except OverflightError:
            raise
        except Exception as error:
            reason = redact_text(str(error)).splitlines()[:1] or [type(error).__name__]
            raise SourceError(f"{redact(where)}: cannot be fetched ({type(error).__name__}: {reason[0]})") from error
        yield path


def _item(where: str, source: str) -> Item:
    suffix = _suffix(where)
    if suffix and suffix not in STILLS:
        raise UsageError(
            f"{redact(where)}: only pictures are read from URLs; copy a video or mosaic first, then name the file"
        )
    return Item("still", redact(source), redact(where), where)


def _suffix(where: str) -> str:
    try:
        return PurePosixPath(urlsplit(where).path).suffix.lower()
    except ValueError as error:  # such as half an IPv6 address
        raise UsageError(f"{redact(where)}: no address ({error}); check it") from error


def _system(where: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise missing_extra("fsspec", "bulk") from error
    try:
        system, path = fsspec.core.url_to_fs(where)
    except ImportError as error:  # it names the package, such as s3fs
        raise MissingError(f"{redact(where)}: {error}") from error
    except ValueError as error:
        raise UsageError(f"{redact(where)}: {redact_text(str(error))}; expected a URL that fsspec knows") from error
    return system, path
