"""Where a checkpoint comes from: a directory, an OpenCLIP ``.pt``, or the Hugging Face hub."""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from overflight.export.checkpoint import CONFIG, INDEX, PREPROCESSING, SINGLE, TOKENIZERS
from overflight.export.convert import convert
from overflight.runtime.errors import MissingError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NEEDED = (CONFIG, *PREPROCESSING, *TOKENIZERS, "tokenizer_config.json", SINGLE, INDEX, "model-*.safetensors")


@contextmanager
def fetched(source: str, scratch: Path) -> Iterator[tuple[Path, str]]:
    """Give the directory of a checkpoint, and its name.

    A ``.pt`` is converted into a directory under ``scratch`` that goes afterwards; a hub id is downloaded into the
    hub's own cache, where an interrupted download goes on. Raises MissingError where nothing is to be had.
    """
    path = Path(source)
    if path.is_dir():
        yield path, path.resolve().name
    elif path.is_file():
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", suffix=".partial", dir=scratch) as directory:
            convert(path, Path(directory))
            yield Path(directory), path.stem
    elif _HUB_ID.fullmatch(source):
        yield _download(source), source.rpartition("/")[2]
    else:
        raise MissingError(f"{source}: no such directory; give a checkpoint's directory, an OpenCLIP .pt or a hub id")


def _download(name: str) -> Path:
    """Download what an export needs of a hub repository, with the library's own progress bars."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub") from error
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_NEEDED)))
    except Exception as error:  # whatever the network library of the day raises
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MissingError(
            f"{name}: no such directory, and the hub did not deliver it ({why}); "
            "check name and network, or copy the checkpoint here"
        ) from error
