"""Default decisions: the threshold and background that a model brings for label files that name none.

They lie next to the weights in ``decisions.json``, are fitted on data, and travel into the bundle with an export.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from overflight.runtime.errors import BundleError, UsageError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.bundle import Bundle

SCHEMA = 1
DECISIONS = "decisions.json"


class BackgroundVector(msgspec.Struct, frozen=True):
    """A background label that no text names: a unit vector with its own scale (logarithm) and bias."""

    name: str
    vector: tuple[float, ...]
    logit_scale: float
    logit_bias: float


class DefaultDecisions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is decided where a label file does not say.

    ``tower`` is the hash of the weights that it was fitted with. ``report`` names what was measured on data that the
    fit did not see.
    """

    schema: int
    tower: str
    threshold: float
    background: tuple[BackgroundVector, ...]
    report: dict[str, float]


def ship_decisions(checkpoint: Path, bundle: Path, tower: str) -> None:
    """Copy a checkpoint's default decisions, if any, into a new bundle. Raises UsageError for another model's."""
    source = checkpoint / DECISIONS
    if not source.is_file():
        return
    try:
        decisions = decode_json(source.read_bytes(), DefaultDecisions)
    except msgspec.DecodeError as error:
        raise UsageError(f"{source}: not default decisions ({error}); remove the file or fit them again") from error
    if decisions.tower != tower:
        raise UsageError(f"{source}: fitted for tower {decisions.tower[:12]}, not {tower[:12]}; fit them again")
    shutil.copyfile(source, bundle / DECISIONS)


def read_decisions(bundle: Bundle) -> DefaultDecisions | None:
    """Return a bundle's default decisions, None where it has none. Raises BundleError for a damaged file."""
    if DECISIONS not in bundle.manifest.files:
        return None
    path = bundle.file(DECISIONS)
    try:
        return decode_json(path.read_bytes(), DefaultDecisions)
    except msgspec.DecodeError as error:
        raise BundleError(f"{path}: not default decisions ({error}); export the checkpoint again") from error
