"""Embedding many pictures into one file, with the names and the tower they belong to."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.durable import write_atomically
from overflight.runtime.errors import SourceError, UsageError, missing_extra
from overflight.runtime.overflight import embed
from overflight.runtime.sources import open_source
from overflight.runtime.sources.stills import folder_of
from overflight.runtime.store import default_engine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.frame import Frame


class Written(msgspec.Struct, frozen=True):
    """What an embedding file holds, and which sources could not be read whole."""

    count: int
    width: int
    tower: str
    unreadable: tuple[str, ...] = ()


def embed_files(sources: Sequence[str], out: Path, bundle: Path | None) -> Written:
    """Embed every frame of every source into ``.npz`` (names, embeddings float32 ``[N, D]``, tower) or ``.parquet``."""
    if out.suffix not in (".npz", ".parquet"):
        raise UsageError(f"{out}: unknown kind of file {out.suffix!r}; expected .npz or .parquet")
    opened = Bundle.open(bundle or default_bundle())
    engine = default_engine(opened)
    names, vectors = [], []
    unreadable: list[str] = []
    try:
        for where in sources:
            source = open_source(where)
            if source.live:
                raise UsageError(f"{source.name}: a live source has no end; embed takes files, folders and patterns")
            folder = folder_of(source.name)
            try:
                for frame in source.frames():
                    names.append(_name(source.name, folder, frame))
                    vectors.append(embed(engine, opened, [frame])[0])
            except SourceError as error:  # what could be read is written all the same
                unreadable.append(str(error))
    finally:
        engine.close()
    if not vectors:
        raise SourceError("; ".join(unreadable) or f"{', '.join(sources)}: no frame; name other sources")
    embeddings = np.stack(vectors)
    tower = opened.manifest.tower
    write = _parquet if out.suffix == ".parquet" else _npz
    write_atomically(out, write(names, embeddings, tower))
    return Written(len(names), embeddings.shape[1], tower, tuple(unreadable))


def _name(source: str, folder: Path | None, frame: Frame) -> str:
    """Name a still by its path as given, because pictures of several folders often have one name."""
    if frame.name is None:
        return f"{source}#{frame.number}"
    return frame.name if folder is None else (folder / frame.name).as_posix()


def _npz(names: list[str], embeddings: NDArray[np.float32], tower: str) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, names=np.array(names), embeddings=embeddings, tower=np.array(tower))
    return buffer.getvalue()


def _parquet(names: list[str], embeddings: NDArray[np.float32], tower: str) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "parquet") from error
    width = embeddings.shape[1]
    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(embeddings.reshape(-1)), width)
    table = pyarrow.table({"name": names, "embedding": vectors}).replace_schema_metadata({"tower": tower})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()
