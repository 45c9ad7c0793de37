"""Reading zip files from outside, .npz among them: only entries whose size is known before they are inflated."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

MOST_ENTRIES = 1_000
_NO_HEADER = (ValueError, EOFError, TypeError, SyntaxError, TokenError, LookupError, RecursionError, MemoryError)
# Of bzip2 and LZMA zipfile inflates whatever there is, however little is asked for: 354 bytes became 300 MB.
_KINDS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_entries(content: bytes, names: re.Pattern[str] | Collection[str], most_bytes: int) -> dict[str, bytes]:
    """Return entries of a zip file, of at most so many bytes together: those with the names, or with such names.

    Raises ValueError.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if isinstance(names, re.Pattern):
                entries = [one for one in packed.infolist() if names.fullmatch(one.filename)]
            else:
                entries = [packed.getinfo(name) for name in names]
            if len(entries) > MOST_ENTRIES:
                raise ValueError(f"{len(entries):,} entries; expected at most {MOST_ENTRIES:,}")
            if any(one.compress_type not in _KINDS for one in entries):
                raise ValueError("an entry is neither stored nor deflated")
            size = sum(one.file_size for one in entries)
            if size > most_bytes:
                raise ValueError(f"{size:,} bytes once inflated; expected at most {most_bytes:,}")
            found = {}
            for one in entries:
                with packed.open(one) as entry:
                    # Without a length zipfile inflates all of it at once, whatever size the directory states.
                    found[one.filename] = entry.read(one.file_size + 1)
            return found
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, LookupError, zlib.error) as error:
        raise ValueError(f"not a whole zip file: {error}") from error


def read_arrays(content: bytes, names: Collection[str], most_bytes: int) -> dict[str, NDArray[Any]]:
    """Return the named arrays of an .npz file, of at most so many bytes together. Raises ValueError."""
    entries = read_entries(content, [f"{name}.npy" for name in names], most_bytes)
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        file = io.BytesIO(entries[f"{name}.npy"])
        try:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, kind = header(file)
            raw = np.frombuffer(file.read(), kind)
        except _NO_HEADER as error:
            raise ValueError(f"{name} is not an array: {error}") from error
        arrays[name] = raw.reshape(shape, order="F" if fortran else "C")
    return arrays
