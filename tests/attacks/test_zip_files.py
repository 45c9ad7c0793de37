"""Zip and .npz files from outside cannot fill the memory of their reader.

Covers: runtime/zip_input.py
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.zip_input import MOST_ENTRIES, read_arrays, read_entries

_READ = """
import sys
from pathlib import Path
from overflight.runtime.zip_input import read_arrays
try:
    print("read", read_arrays(Path(sys.argv[1]).read_bytes(), ["frames"], 1_000_000))
except ValueError as error:
    print("refused", error)
"""


@cache
def zeros(kind: int, megabytes: int) -> bytes:
    """Return a zip file of zeros under the name of an array."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as packed, packed.open("frames.npy", "w") as entry:
        for _ in range(megabytes):
            entry.write(bytes(1 << 20))
    return file.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("claim", [None, 1000])
def test_a_bomb_costs_no_memory(kind: int, claim: int | None, limited: Callable[..., Any], tmp_path: Path) -> None:
    """100 MB of zeros, also where the file states a thousand bytes: zipfile itself would inflate all of it."""
    raw, size = zeros(kind, 100), (100 << 20).to_bytes(4, "little")
    (tmp_path / "golden.npz").write_bytes(raw if claim is None else raw.replace(size, claim.to_bytes(4, "little")))
    ended = limited(_READ, str(tmp_path / "golden.npz"))
    assert "refused" in ended.said
    assert ended.peak_mb < 100


def npy(header: str, body: bytes) -> bytes:
    """Return a zip file with one array of this header."""
    file = io.BytesIO()
    text = header.encode().ljust(118) + b"\n"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("frames.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000,), }", b"123"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", b"123"),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 0), }", b""),
        npy("{" * 100, b""),
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", b"123")[:-30],
        b"PK\x05\x06" + bytes(18),
        b"",
    ],
    ids=["endless", "pickle", "short", "negative", "no header", "torn", "empty zip", "empty"],
)
def test_what_is_no_array_is_a_value_error(content: bytes) -> None:
    """Nothing is allocated for what a header promises, and nothing is unpickled."""
    with pytest.raises(ValueError, match=r"not|frames|reshape|negative"):
        read_arrays(content, ["frames"], 1_000_000)


def test_arrays_come_back_as_numpy_wrote_them() -> None:
    """Of any shape, in either order, stored or deflated."""
    arrays: dict[str, NDArray[Any]] = {
        "a": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "b": np.asfortranarray(np.eye(3)),
        "c": np.empty((0, 5), np.uint8),
        "d": np.array(7),
    }
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)  # type: ignore[arg-type]  # the stub knows only allow_pickle by name
        found = read_arrays(file.getvalue(), list(arrays), 1_000_000)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_entries_are_counted() -> None:
    """A directory of many small entries would become as many files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number in range(MOST_ENTRIES + 1):
            packed.writestr(f"{number}.jsonl", b"")
    with pytest.raises(ValueError, match="1,001 entries"):
        read_entries(file.getvalue(), [f"{number}.jsonl" for number in range(MOST_ENTRIES + 1)], 1000)
