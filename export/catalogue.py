"""The table of published models: where each one lies, how to read it, and under which licence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from overflight.export.checkpoint import Reading
from overflight.export.fetch import Repository, locate_in
from overflight.export.tables import read_table
from overflight.runtime.bundle import Origin, hash_file
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_TABLE = Path(__file__).with_name("catalogue.toml")


class PublishedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of the table."""

    title: str
    repo: str
    licence: str
    see: str
    templates: str
    revision: str | None = None
    file: str | None = None
    like: str | None = None
    tokenizer: str | None = None


class Fetched(msgspec.Struct, frozen=True):
    """A model on this machine: what to export, how to read it, and where it came from."""

    source: Path
    reading: Reading
    origin: Origin


def read_catalogue() -> dict[str, PublishedModel]:
    """Read the table."""
    return msgspec.convert(read_table(_TABLE), dict[str, PublishedModel])


def find_model(name: str) -> PublishedModel:
    """Return one model. Raises UsageError where the table has none of this name."""
    table = read_catalogue()
    if name not in table:
        raise UsageError(f"{name}: no such model in the table; known are {', '.join(table)}")
    return table[name]


def fetch_model(
    model: PublishedModel, repository: Repository, report: Callable[[float], None] = lambda share: None
) -> Fetched:
    """Download a model, or find it in a local copy, and hash what will be read.

    Raises MissingError where it is not to be had, UsageError where a file is not the one that the hub names.
    """
    source, revision = repository.get(model.repo, model.revision, model.file)
    tokenizer = None
    if model.tokenizer is not None:
        tokenizer = locate_in(source) or repository.get_tokenizer(model.tokenizer)
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    hashes = {}
    for number, path in enumerate(files, start=1):
        hashes[path.name] = hash_file(path)
        repository.check(model.repo, model.file or path.name, revision, hashes[path.name])
        report(number / len(files))
    origin = Origin(model.repo, revision, model.licence, hashes)
    return Fetched(source, Reading(like=model.like, tokenizer=tokenizer), origin)
