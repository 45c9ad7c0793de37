"""From a checkpoint to the description of its towers: which tensor is which, in each publisher's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.export.checkpoint import OPEN_CLIP
from overflight.export.layouts.open_clip import describe_open_clip, read_open_clip_resize
from overflight.export.layouts.transformers_clip import describe_clip
from overflight.export.layouts.transformers_siglip import describe_siglip
from overflight.export.preprocessing import PREPROCESSOR, read_preprocessing
from overflight.export.tokenizer_files import check_tokenizer
from overflight.runtime.errors import OverflightError, UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.export.tower import Model

# Model types that people ask for and that are not two plain towers, with the reason.
_REASONS = {
    "siglip2_vision_model": "it is only the image half",
    "siglip_vision_model": "it is only the image half",
    "clip_vision_model": "it is only the image half",
    "clip_text_model": "it is only the text half",
    "metaclip_2": "its text tower is multilingual; give the open_clip checkpoint of the same model",
    "mobilenet": "it is no CLIP model",
    "timm_wrapper": "it is an image model without a text tower",
}


def describe(checkpoint: Checkpoint) -> Model:
    """Describe both towers of a checkpoint, and check that nothing in it was left unread.

    Raises UsageError for a model that cannot be exported faithfully.
    """
    own = checkpoint.layout == "open_clip"
    model = describe_open_clip(checkpoint) if own else _describe_transformers(checkpoint)
    checkpoint.check_consumed()
    check_tokenizer(checkpoint, model)
    _note_disagreement(checkpoint, model)
    return model


def _describe_transformers(checkpoint: Checkpoint) -> Model:
    kind = checkpoint.settings().get("model_type")
    match kind:
        case "siglip" | "siglip2":
            model = describe_siglip(checkpoint)
        case "clip":
            model = describe_clip(checkpoint)
        case _:
            reason = _REASONS.get(str(kind), "only these families can be exported")
            raise UsageError(f"{checkpoint.source}: model_type {kind!r}, expected siglip, siglip2 or clip; {reason}")
    return model


def _note_disagreement(checkpoint: Checkpoint, model: Model) -> None:
    """Note where a directory describes the model in both layouts, which prepare pictures differently."""
    if not (checkpoint.file(OPEN_CLIP).is_file() and checkpoint.file(PREPROCESSOR).is_file()):
        return
    own = checkpoint.layout == "open_clip"
    try:
        other, _ = (read_preprocessing if own else read_open_clip_resize)(checkpoint, model.resize.side)
    except OverflightError as error:
        checkpoint.notes.append(f"the other layout's settings cannot be read ({error})")
        return
    if (other.fit, other.filter) != (model.resize.fit, model.resize.filter):
        names = (OPEN_CLIP, PREPROCESSOR) if own else (PREPROCESSOR, OPEN_CLIP)
        checkpoint.notes.append(
            f"pictures are prepared as {names[0]} says ({model.resize.fit}, {model.resize.filter}); {names[1]} says "
            f"{other.fit}, {other.filter}"
        )
