"""Tokenising: texts become the token ids that the text tower was trained on, to the bit."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.export.text_cleaning import canonicalise, cleaner
from overflight.runtime.errors import BundleError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Tokenising

# What pads where the files do not say it.
_PADS = {"siglip": "</s>", "siglip2": "<pad>", "clip": "<|endoftext|>", "open_clip": "<pad>"}
_SPACE = "▁"  # how SentencePiece writes a space
_UNK = "<unk>"


@dataclass(frozen=True)
class Tokens:
    """One text as the tower reads it.

    ``ids`` are padded, or cut, to the context. ``length`` is how many the text needs, special tokens included: where
    it exceeds the context, the text was cut. ``unknown`` holds the characters that the vocabulary cannot spell.
    """

    ids: tuple[int, ...]
    length: int
    unknown: str


class Tokeniser:
    """The tokeniser of one text tower; ``context`` is how many ids it takes."""

    def __init__(self, context: int, vocabulary: int, split: Callable[[str], Tokens]) -> None:
        self.context = context
        self._vocabulary = vocabulary
        self._split = split

    @classmethod
    def read(cls, directory: Path, tokenising: Tokenising) -> Tokeniser:
        """Read the tokeniser of a checkpoint or of a bundle's ``tokenizer/``.

        SigLIP is canonicalised, split by SentencePiece (``spiece.model``, else ``tokenizer.json``), ended with
        ``</s>`` and padded with it. SigLIP 2 is lower-cased, split by ``tokenizer.json``, ended with ``<eos>`` and
        padded on the side that the files name. CLIP does what ``tokenizer.json`` says. OpenCLIP cleans a text first and
        pads with an id of its own. Raises BundleError for files that are damaged or of another model, MissingError
        where a library is not installed.
        """
        config = read_tokenizer_config(directory / "tokenizer_config.json")
        spiece, tokenizer = directory / "spiece.model", directory / "tokenizer.json"
        if tokenising.kind == "siglip" and spiece.is_file():
            split = _sentencepiece(spiece, config, tokenising.context)
        elif tokenizer.is_file():
            split = _tokenizers(tokenizer, config, tokenising)
        else:
            wanted = "spiece.model or tokenizer.json" if tokenising.kind == "siglip" else "tokenizer.json"
            raise BundleError(f"{directory}: no {wanted}; copy the checkpoint's tokenizer files there")
        return cls(tokenising.context, tokenising.vocabulary, split)

    def split(self, text: str) -> Tokens:
        """Tokenise one text. Raises BundleError where the tower has no embedding for an id."""
        tokens = self._split(text)
        if max(tokens.ids) >= self._vocabulary:
            raise BundleError(
                f"token id {max(tokens.ids)} for {text!r}, but the text tower knows {self._vocabulary} tokens; "
                "the tokenizer belongs to another model"
            )
        return tokens

    def encode(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokenise texts to ids ``[N, context]``; what exceeds the context is cut, as the reference does."""
        rows = [self.split(text).ids for text in texts]
        return np.array(rows, dtype=np.int64).reshape(len(rows), self.context)


def read_tokenizer_config(path: Path) -> dict[str, Any]:
    """Read tokenizer_config.json, empty where it is missing. Raises BundleError."""
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON ({error}); copy the checkpoint's tokenizer files again") from error
    return config if isinstance(config, dict) else {}


def _token(config: dict[str, Any], name: str, default: str) -> str:
    """Return a special token's text; old files wrap it in an object."""
    token = config.get(name) or default
    return str(token["content"] if isinstance(token, dict) else token)


def _sentencepiece(path: Path, config: dict[str, Any], context: int) -> Callable[[str], Tokens]:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise missing_extra("sentencepiece", "export") from error
    try:
        model = SentencePieceProcessor(model_proto=path.read_bytes())
        prefix = len(model.encode(_UNK))
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{path}: not a SentencePiece model; copy the checkpoint's tokenizer files again") from error

    unk = model.unk_id()
    eos, pad = (
        model.piece_to_id(_token(config, name, "</s>"))  # both are </s> in every published SigLIP
        for name in ("eos_token", "pad_token")
    )
    if unk in {eos, pad}:
        raise BundleError(f"{path}: the vocabulary has no </s>, which ends and pads a SigLIP text; expected id 1")
    lower = bool(config.get("do_lower_case", True))

    def split(text: str) -> Tokens:
        # A model may strip a space before the text: transformers writes <unk> there and drops the pieces it becomes.
        canonical = canonicalise(_SPACE + text.replace(_SPACE, " "), lower=lower)
        pieces = model.encode(_UNK + canonical, out_type=str)[prefix:]
        ids = [model.piece_to_id(piece) for piece in pieces]
        unknown = "".join(piece for piece, id_ in zip(pieces, ids, strict=True) if id_ == unk)
        kept = [*ids[: context - 1], eos]
        return Tokens((*kept, *[pad] * (context - len(kept))), len(ids) + 1, _distinct(unknown))

    return split


def load_tokenizer(path: Path) -> Any:
    """Load a tokenizer.json. Raises BundleError, or MissingError without the library."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise missing_extra("tokenizers", "export") from error
    try:
        return Tokenizer.from_file(str(path))
    except BaseException as error:  # nothing narrower, and a panic of the library is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        what = " ".join(str(error).split())[:200]
        raise BundleError(f"{path}: not a tokenizer ({what}); copy the checkpoint's tokenizer files again") from error


def encode_with(model: Any, path: Path, text: str) -> Any:
    """Encode a text. Raises BundleError where the tokenizer cannot, such as for want of an unknown token."""
    try:
        return model.encode(text)
    except Exception as error:  # the library raises nothing narrower
        what = " ".join(str(error).split())[:200]
        raise BundleError(f"{path}: cannot tokenise a text ({what}); copy the tokenizer files again") from error


def _tokenizers(path: Path, config: dict[str, Any], tokenising: Tokenising) -> Callable[[str], Tokens]:
    model = load_tokenizer(path)
    from tokenizers import normalizers

    kind, context = tokenising.kind, tokenising.context
    lower = bool(config.get("do_lower_case", True))
    if kind == "siglip2" and lower:  # the published file lacks what the tower was trained with
        rest = [] if model.normalizer is None else [model.normalizer]
        model.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
    pad = _token(config, "pad_token", _PADS[kind])
    pad_id = model.token_to_id(pad) if tokenising.pad is None else tokenising.pad
    if pad_id is None:
        raise BundleError(f"{path}: the vocabulary has no {pad!r}, which pads; the tokenizer belongs to another model")
    side = _padding_side(path, config, model.padding, kind) if tokenising.pad is None else "right"
    model.enable_padding(direction=side, pad_id=pad_id, pad_token=pad, length=context)
    model.enable_truncation(context)
    special = model.num_special_tokens_to_add(False)
    unk = model.token_to_id(_token(config, "unk_token", _UNK)) if kind in ("siglip", "siglip2") else None
    clean = cleaner(tokenising.clean)

    def split(text: str) -> Tokens:
        seen = canonicalise(text, lower=lower) if kind == "siglip" and tokenising.clean == "none" else clean(text)
        encoding = encode_with(model, path, seen)
        cut = sum(sum(rest.attention_mask) - special for rest in encoding.overflowing)
        return Tokens(tuple(encoding.ids), sum(encoding.attention_mask) + cut, _misspelt(seen, encoding, unk))

    return split


def _padding_side(path: Path, config: dict[str, Any], padding: dict[str, Any] | None, kind: str) -> str:
    side = config.get("padding_side") or (padding or {}).get("direction")
    if side is None and kind == "siglip2":  # it pools the last position: the wrong side is silent nonsense
        raise BundleError(
            f"{path}: no padding side there or in tokenizer_config.json; write padding_side into the latter"
        )
    return str(side or "right").lower()


def _misspelt(text: str, encoding: Any, unk: int | None) -> str:
    """Return the characters that became the unknown token, or several tokens each: raw bytes."""
    spans = [span for span, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special]
    bytes_ = [text[a:b] for (a, b), (c, d) in itertools.pairwise(spans) if (a, b) == (c, d) and b - a == 1]
    unknown = [text[a:b] for (a, b), id_ in zip(encoding.offsets, encoding.ids, strict=True) if id_ == unk]
    return _distinct("".join(unknown + bytes_))


def _distinct(characters: str) -> str:
    return "".join(dict.fromkeys(character for character in characters if not character.isspace()))
