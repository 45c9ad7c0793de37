"""Where a checkpoint comes from: a directory, a file of weights, the Hugging Face hub, a mirror or a copy of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from overflight.export.checkpoint import ADAPTER, CONFIG, OPEN_CLIP, OPEN_CLIP_OWN, TOKENIZER_CONFIG, TOKENIZERS
from overflight.export.preprocessing import PREPROCESSOR, PROCESSOR
from overflight.runtime.errors import MissingError, UsageError, missing_extra

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
_UNKNOWN = "unknown"  # the revision of a local copy


def locate(source: str) -> tuple[Path, str]:
    """Return a checkpoint's directory or file, and its name.

    A hub id is downloaded into the hub's own cache, where an interrupted download resumes. Raises UsageError where
    there is nothing.
    """
    path = Path(source)
    if path.is_dir():
        return path, path.resolve().name
    if path.is_file():
        return path, path.stem
    if _HUB_ID.fullmatch(source):
        return Repository().get(source, None, None)[0], source.rpartition("/")[2]
    raise UsageError(
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
        return Repository().get_tokenizer(source)
    raise UsageError(f"{source}: no such directory; give one with a tokenizer.json, or a hub id")


def locate_in(source: Path) -> Path | None:
    """Return the directory of a file of weights where a tokenizer lies next to it."""
    directory = source if source.is_dir() else source.parent
    return directory if any((directory / name).is_file() for name in TOKENIZERS) else None


class Repository:
    """The hub, a mirror of it, or a local copy: a directory with one folder per repository, or the model's own.

    ``place`` is a mirror's URL or a directory; without it the hub (or ``HF_ENDPOINT``) is used.
    """

    def __init__(self, place: str | None = None) -> None:
        self._endpoint = place if place is not None and place.startswith(("http://", "https://")) else None
        self._copy = Path(place) if place is not None and self._endpoint is None else None
        if self._copy is not None and not self._copy.is_dir():
            raise UsageError(f"{place}: no such directory; give a mirror's URL or a directory with a copy")

    def get(self, name: str, revision: str | None, file: str | None) -> tuple[Path, str]:
        """Return a repository's checkpoint, or one file of it, and its commit."""
        if self._copy is not None:
            return self._find(name, file), _UNKNOWN
        patterns = [file, *TOKENIZERS, TOKENIZER_CONFIG] if file is not None else None
        snapshot = self._download(name, revision, patterns)
        if file is not None and not (snapshot / file).is_file():
            raise MissingError(f"{name}: has no file {file}; look at the repository for its new name")
        return (snapshot / file if file else snapshot), snapshot.name

    def get_tokenizer(self, name: str) -> Path:
        """Return the directory of a repository's tokenizer files."""
        if self._copy is not None:
            return self._find(name, None)
        return self._download(name, None, [*TOKENIZERS, TOKENIZER_CONFIG])

    def check(self, name: str, file: str, revision: str, sha256: str) -> None:
        """Compare a file's hash with the one that the hub keeps of large files. Raises UsageError."""
        if self._copy is not None:
            return
        known = self._known_hash(name, file, revision)
        if known is not None and known != sha256:
            raise UsageError(
                f"{name}: {file} has SHA-256 {sha256[:16]}…, the hub names {known[:16]}…; remove it from the hub's "
                "cache and fetch again"
            )

    def _known_hash(self, name: str, file: str, revision: str) -> str | None:
        try:
            (entry,) = _library().HfApi(endpoint=self._endpoint).get_paths_info(name, [file], revision=revision)
        except Exception:  # without a network there is nothing to compare with
            return None
        known = getattr(entry, "lfs", None)
        return str(known.sha256) if known is not None else None

    def _find(self, name: str, file: str | None) -> Path:
        """Find a repository's folder in the local copy: OWNER/NAME, NAME, or the directory itself."""
        assert self._copy is not None
        folders = (self._copy / name, self._copy / name.rpartition("/")[2], self._copy)
        for folder in folders:
            wanted = [folder / file, folder / Path(file).name] if file else [folder]
            for path in wanted:
                if path.is_file() or (not file and any((path / one).is_file() for one in (*_SMALL, *OPEN_CLIP_OWN))):
                    return path
        raise MissingError(f"{self._copy}: no copy of {name}{f' with {file}' if file else ''}; copy it there")

    def _download(self, name: str, revision: str | None, patterns: list[str] | None) -> Path:
        """Download what is needed of a hub repository, with the library's own progress bars."""
        library = _library()
        try:
            if patterns is None:
                try:
                    there = set(library.HfApi(endpoint=self._endpoint).list_repo_files(name, revision=revision))
                except Exception:
                    cached = _cached(library, name, revision)
                    if cached is None:
                        raise
                    return cached
                patterns = [*_SMALL, *_choose_form(there)]
            return Path(
                library.snapshot_download(name, revision=revision, allow_patterns=patterns, endpoint=self._endpoint)
            )
        except Exception as error:  # whatever the network library of the day raises
            why = str(error).strip().partition("\n")[0] or type(error).__name__
            raise MissingError(
                f"{name}: no such directory or file, and the hub did not deliver it ({why}); "
                "check name and network, or copy the checkpoint here"
            ) from error


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "hub") from error
    return huggingface_hub


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
