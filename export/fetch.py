"""Where a checkpoint comes from: a directory, a file of weights, or the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from overflight.export.checkpoint import ADAPTER, CONFIG, OPEN_CLIP, OPEN_CLIP_OWN, TOKENIZER_CONFIG, TOKENIZERS
from overflight.export.preprocessing import PREPROCESSOR, PROCESSOR
from overflight.runtime.errors import MissingError, missing_extra

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SMALL = (CONFIG, OPEN_CLIP, ADAPTER, PREPROCESSOR, PROCESSOR, *TOKENIZERS, TOKENIZER_CONFIG)
# The forms of weights in order of preference: the first that a repository has is downloaded, and no other.
_FORMS = (
    *((name,) for name in OPEN_CLIP_OWN),
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ("adapter_model.safetensors",),
)


def locate(source: str, revision: str | None = None) -> tuple[Path, str]:
    """Return a checkpoint's directory or file, and its name.

    A hub id is downloaded into the hub's own cache, where an interrupted download resumes. Raises MissingError where
    there is nothing.
    """
    path = Path(source)
    if path.is_dir():
        return path, path.resolve().name
    if path.is_file():
        return path, path.stem
    if _HUB_ID.fullmatch(source):
        return _download(source, revision), source.rpartition("/")[2]
    raise MissingError(
        f"{source}: no such directory or file; give a checkpoint's directory, a file of weights or a hub id"
    )


def locate_tokenizer(source: str) -> Path:
    """Return a directory with tokenizer files; of a hub repository nothing else is downloaded."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.is_file() and path.name in TOKENIZERS:
        return path.parent
    if _HUB_ID.fullmatch(source):
        return _download(source, None, weights=False)
    raise MissingError(f"{source}: no such directory; give one with a tokenizer.json, or a hub id")


def _download(name: str, revision: str | None, *, weights: bool = True) -> Path:
    """Download what an export needs of a hub repository, with the library's own progress bars."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub") from error
    try:
        try:
            there = set(huggingface_hub.HfApi().list_repo_files(name, revision=revision))
        except Exception:
            cached = _cached(huggingface_hub, name, revision)
            if cached is None:
                raise
            return cached
        patterns = [*_SMALL, *_choose_form(there)] if weights else [*TOKENIZERS, TOKENIZER_CONFIG]
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # whatever the network library of the day raises
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise MissingError(
            f"{name}: no such directory or file, and the hub did not deliver it ({why}); "
            "check name and network, or copy the checkpoint here"
        ) from error


def _choose_form(there: set[str]) -> tuple[str, ...]:
    """Return the names of the one form of weights to download."""
    forms = _FORMS if OPEN_CLIP in there else _FORMS[len(OPEN_CLIP_OWN) :]
    return next((form for form in forms if form[0] in there), ())


def _cached(library: Any, name: str, revision: str | None) -> Path | None:
    """Return what was downloaded before, for a machine without a network."""
    try:
        return Path(library.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # nothing, or only a part
        return None
