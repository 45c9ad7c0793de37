"""A checkpoint's tokenizer files: which kind they are, found by what they do to a sentence, not by a class name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overflight.export.tokenise import Tokeniser, encode_with, load_tokenizer
from overflight.export.tower import EndPool
from overflight.runtime.errors import BundleError, UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint
    from overflight.export.tower import Model
    from overflight.runtime.bundle import TokeniserKind

PROBE = "A photo of a river, houses and roads."

# The last token that each family's files put after a text. CLIP's has two spellings.
_ENDS: dict[str, TokeniserKind] = {
    "</s>": "siglip",
    "<eos>": "siglip2",
    "<|endoftext|>": "clip",
    "<end_of_text>": "clip",
}


def identify(checkpoint: Checkpoint, expected: tuple[TokeniserKind, ...]) -> TokeniserKind:
    """Return the kind of tokenizer, which must be one of ``expected``. Raises UsageError or BundleError."""
    files = {path.name: path for path in checkpoint.tokenizers()}
    if "spiece.model" in files and "siglip" in expected:
        return "siglip"  # SigLIP's own tokenizer reads this file and no other
    if "tokenizer.json" not in files:
        raise UsageError(f"{checkpoint.tokenizer_directory}: spiece.model, but this model needs a tokenizer.json")
    tokenizer = load_tokenizer(files["tokenizer.json"])
    tokenizer.no_padding()  # transformers may have saved what it did last
    tokenizer.no_truncation()
    last = encode_with(tokenizer, files["tokenizer.json"], PROBE).tokens[-1:]
    kind = _ENDS.get(last[0]) if last else None
    if kind not in expected:
        wanted = " or ".join(end for end, one in _ENDS.items() if one in expected)
        raise UsageError(
            f"{files['tokenizer.json']}: ends a text with {last[0] if last else 'nothing'!r}, expected {wanted}; "
            "the tokenizer belongs to another model"
        )
    return kind


def check_tokenizer(checkpoint: Checkpoint, model: Model) -> None:
    """Tokenise a sentence as the bundle will. Raises BundleError where the towers cannot take it.

    A text tower that pools at an end token which the tokenizer never writes is noted: it pools the first state.
    """
    directory, tokenising = checkpoint.tokenizer_directory, model.tokenising
    tokens = Tokeniser.read(directory, tokenising).split(PROBE)
    pool = model.text.encoder.pool
    if isinstance(pool, EndPool) and pool.end is not None and pool.end not in tokens.ids:
        if checkpoint.layout == "transformers":
            raise BundleError(
                f"{directory}: the text tower pools at token {pool.end}, which the tokenizer never writes; "
                "eos_token_id or the tokenizer is of another model"
            )
        checkpoint.notes.append(
            f"the text tower pools at token {pool.end}, which the tokenizer never writes: it may be of another model"
        )


def identify_open_clip(checkpoint: Checkpoint, named: str | None) -> None:
    """Check the tokenizer of open_clip's layout: CLIP's own, unless the settings name one of the hub.

    Raises UsageError or BundleError.
    """
    files = {path.name: path for path in checkpoint.tokenizers()}
    if "tokenizer.json" not in files:
        raise UsageError(
            f"{checkpoint.tokenizer_directory}: spiece.model, but open_clip's layout needs a tokenizer.json"
            + (f"; copy that of {named}" if named else "")
        )
    if named is None:
        identify(checkpoint, ("clip",))
