"""Settings of a checkpoint: every key is used, or named among those that do not matter, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from overflight.runtime.errors import MissingError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

Shape = TypeVar("Shape", bound=msgspec.Struct)

_NEUTRAL = ("add_cross_attention", "is_decoder", "is_encoder_decoder", "pruned_heads")  # must be false or empty


def read_settings(raw: Any, form: type[Shape], where: str, ignored: frozenset[str]) -> Shape:
    """Read one object of a settings file as ``form``; ``where`` names it in errors.

    Raises UsageError where a value does not fit, or where a key is neither a field of ``form`` nor ignored.
    """
    if not isinstance(raw, dict):
        raise UsageError(f"{where}: expected an object of settings, got {type(raw).__name__}")
    fields = set(form.__struct_encode_fields__)
    unknown = sorted(str(key) for key in raw if key not in fields and key not in ignored)
    if unknown:
        raise UsageError(
            f"{where}: {', '.join(unknown[:6])}: not a setting that an export knows, and it may change the model; "
            "remove it if it does not, else this model cannot be exported"
        )
    for key in _NEUTRAL:
        if raw.get(key) and key not in fields:
            raise UsageError(f"{where}: {key} is {str(raw[key])[:60]}; such a model cannot be exported")
    # transformers writes null for "not set", which is the field's default.
    given = {key: value for key, value in raw.items() if key in fields and value is not None}
    try:
        return msgspec.convert(given, form, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}; not the settings of a model that can be exported") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that contains one object. Raises UsageError, or MissingError where it is not there."""
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise MissingError(f"{path}: {error.strerror}; the checkpoint is incomplete") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: expected a JSON object, got {type(found).__name__}; download it again")
    return found
