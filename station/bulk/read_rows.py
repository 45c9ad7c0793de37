"""Reading a shard's Parquet file again: in parts of bounded size, and only if it is what this package writes."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.runtime.bundle import hash_file
from overflight.runtime.errors import OverflightError
from overflight.station.bulk.parquet_pages import inflated_groups
from overflight.station.bulk.rows import GROUP_ROWS, Rows, pyarrow, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.station.bulk.records import Settings, ShardRecord

MOST_ROW_BYTES = 16_000  # of a row besides its embedding, mean of a file: a path has at most 4,096 bytes
MOST_GROUP_BYTES = 128 << 20
MOST_ROWS = 10_000_000


def read_rows(
    path: Path, record: ShardRecord, settings: Settings
) -> Iterator[tuple[list[dict[str, Any]], NDArray[np.float16]]]:
    """Yield a shard's rows and their unit embeddings ``[N, D]``, at most ``GROUP_ROWS`` at a time.

    The file must have the hash, the columns and the number of rows that its manifest and the settings state. Raises
    OverflightError for any other.
    """
    arrow = pyarrow()
    if hash_file(path) != record.file_sha256:
        raise OverflightError(f"{path}: altered since it was written; run overflight bulk --check to embed it again")
    try:
        with arrow.parquet.ParquetFile(path) as file:
            _check(file, path, record, settings)
            for batch in file.iter_batches(batch_size=GROUP_ROWS, use_threads=False):
                vectors = batch["embedding"].flatten().to_numpy(zero_copy_only=False).astype(np.float16)
                vectors = vectors.reshape(len(batch), settings.width)
                if not np.isfinite(vectors).all():
                    raise OverflightError(f"{path}: an embedding is not finite; embed the shard again")
                yield batch.drop_columns(["embedding"]).to_pylist(), vectors
    except (OSError, MemoryError, ValueError, ArithmeticError, NotImplementedError, arrow.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise OverflightError(f"{path}: cannot be read as rows of a shard ({reason}); embed it again") from error


def _check(file: Any, path: Path, record: ShardRecord, settings: Settings) -> None:
    """Compare what the file says of itself, before any of it is decoded. Raises OverflightError."""
    found, expected = file.schema_arrow, table_of(Rows(), settings).schema
    if not found.equals(expected, check_metadata=False):
        raise OverflightError(f"{path}: other columns than a shard of this store has; embed the shard again")
    if file.metadata.num_rows != record.rows or record.rows > MOST_ROWS:
        got = f"{file.metadata.num_rows:,} rows, its manifest says {record.rows:,}"
        raise OverflightError(f"{path}: {got}; expected the same, and at most {MOST_ROWS:,}")
    with path.open("rb") as raw, mmap(raw.fileno(), 0, access=ACCESS_READ) as content:
        for rows, size in inflated_groups(content):
            most = min(MOST_GROUP_BYTES, 1 << 20 | rows * (4 * settings.width + MOST_ROW_BYTES))
            if size > most:
                raise OverflightError(f"{path}: {size:,} bytes in a group of {rows:,} rows; expected at most {most:,}")
