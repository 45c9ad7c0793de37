"""Gather and embed the texts that the text tower learns from, and train its SentencePiece model."""

from __future__ import annotations

import argparse
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overflight.models import corpus as corpora
from overflight.models.scenes import TRAINING_TEMPLATES, fill, name_scene
from overflight.models.tokens import canonicalise

HERE = Path(__file__).parent
ANCHOR_TEMPLATES = (
    "a remote sensing image of {name}",
    "a satellite image of {name}",
    "an aerial photograph of {name}",
)
QUALITIES = (
    "large small long narrow wide round rectangular green brown grey white red blue yellow dark "
    "bright dense sparse empty crowded old new modern flooded burnt burned dry wet snowy frozen "
    "muddy sandy rocky grassy damaged collapsed abandoned parked moving industrial residential "
    "agricultural urban rural coastal winding straight curved parallel scattered"
)
ADJECTIVES = tuple(QUALITIES.split())
JOINTS = (
    "{a} near {b}",
    "{a} with {b}",
    "{a} next to {b}",
    "{a} and {b}",
    "{a} surrounded by {b}",
    "{a} in the middle of {b}",
    "many {a} beside {b}",
    "several {a} on both sides of {b}",
    "two {a} between {b}",
    "there is {a} here",
    "{a} under {b}",
    "{a} without {b}",
)
COMPOSED = 40_000
TEMPLATED_PER_NAME = 24


@dataclass(frozen=True)
class Pool:
    """Texts to learn, and for each the row of its target in `targets` (unit float16 `[M, 384]`)."""

    texts: list[str]
    target: np.ndarray
    targets: np.ndarray
    group: np.ndarray


def read_names() -> list[str]:
    """Return the committed names of things seen from above."""
    lines = (HERE / "names.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def read_open_vocabulary() -> dict[str, object]:
    """Return the sixty texts that no training text may equal."""
    found: dict[str, object] = json.loads((HERE / "open_vocabulary.json").read_text())
    return found


def reserve() -> set[str]:
    """Return the canonical form of every open-vocabulary text."""
    found = read_open_vocabulary()
    paraphrases, field = found["paraphrases"], found["field"]
    assert isinstance(paraphrases, dict)
    assert isinstance(field, list)
    return {canonicalise(text) for text in [*paraphrases.values(), *field]}


def compose(names: list[str], count: int, seed: int) -> list[str]:
    """Return short phrases of two names, adjectives and a joint."""
    draw = random.Random(seed)  # noqa: S311

    def noun() -> str:
        name = draw.choice(names)
        return f"{draw.choice(ADJECTIVES)} {name}" if draw.random() < 0.5 else name

    phrases = [f"{draw.choice(ADJECTIVES)} {name}" for name in names for _ in range(8)]
    while len(phrases) < count:
        phrases.append(draw.choice(JOINTS).format(a=noun(), b=noun()))
    return phrases


def template_names(names: list[str], count: int, seed: int) -> list[tuple[str, str]]:
    """Return (prompt, name) for `count` training templates of each name."""
    draw = random.Random(seed)  # noqa: S311
    return [
        (fill(template, name), name)
        for name in names
        for template in draw.sample(TRAINING_TEMPLATES, min(count, len(TRAINING_TEMPLATES)))
    ]


def anchor(names: list[str]) -> np.ndarray:
    """Return one target per name, whatever its template: the mean over plain and prompted forms."""
    from overflight.models.teacher import embed

    forms = [[name, *(fill(template, name) for template in ANCHOR_TEMPLATES)] for name in names]
    vectors = embed([text for row in forms for text in row]).reshape(len(names), len(forms[0]), -1)
    mean = (vectors[:, 0] + vectors[:, 1:].mean(1)) / 2
    unit: np.ndarray = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    return unit


def gather(captions: list[str], scenes: list[str], seed: int) -> Pool:
    """Build the pool: captions, names under training templates, words, composed phrases."""
    from overflight.models.teacher import embed, read_words

    reserved = reserve()
    names = list(dict.fromkeys([name_scene(scene) for scene in scenes] + read_names()))
    names = [name for name in names if canonicalise(name) not in reserved]
    words = [word for word in read_words() if word not in reserved]
    plain = list(dict.fromkeys(captions)) + words + compose(names, COMPOSED, seed)
    plain = [text for text in plain if canonicalise(text) not in reserved]
    sizes = [len(set(captions)), len(words)]
    vectors = np.concatenate([anchor(names), embed(plain)]).astype(np.float16)
    prompts = template_names(names, TEMPLATED_PER_NAME, seed)
    scene_prompts = [
        (fill(template, name_scene(scene)), name_scene(scene)) for scene in scenes for template in TRAINING_TEMPLATES
    ]
    named = [(name, name) for name in names] + prompts + scene_prompts
    row = {name: index for index, name in enumerate(names)}
    texts = [text for text, _ in named] + plain
    target = [row[name] for _, name in named] + list(range(len(names), len(vectors)))
    group = np.full(len(texts), 3)
    start = len(named)
    group[:start] = 0
    group[start : start + sizes[0]] = 1
    group[start + sizes[0] : start + sum(sizes)] = 2
    return Pool(texts, np.array(target), vectors, group)


def count_words(pool: Pool, words: list[str]) -> dict[str, int]:
    """Count words in the pool, and give every general word a Zipf count by its rank."""
    counts = {word: math.ceil(300_000 / (rank + 200)) for rank, word in enumerate(words)}
    for text in pool.texts:
        for word in canonicalise(text).split():
            counts[word] = counts.get(word, 0) + 1
    return counts


def train_pieces(counts: dict[str, int], folder: Path, size: int) -> None:
    """Train a unigram SentencePiece model on word counts and fill it up with the commonest words.

    The trainer only considers pieces that occur in two words, so whole words are added after it
    with their own log frequency: a word that is one piece starts with a meaning of its own.
    """
    from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2

    table = folder / "words.tsv"
    table.write_text("".join(f"{word}\t{count}\n" for word, count in sorted(counts.items())))
    SentencePieceTrainer.train(
        input=str(table),
        input_format="tsv",
        model_prefix=str(folder / "subwords"),
        vocab_size=size // 4,
        model_type="unigram",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=1,
    )
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString((folder / "subwords.model").read_bytes())
    known = {piece.piece for piece in model.pieces}
    total = sum(counts.values())
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        if len(model.pieces) == size:
            break
        if (piece := f"\u2581{word}") not in known:
            model.pieces.add(piece=piece, score=math.log(counts[word] / total))
    model.trainer_spec.vocab_size = len(model.pieces)
    (folder / "spiece.model").write_bytes(model.SerializeToString())


def save(pool: Pool, folder: Path) -> None:
    """Write the pool as one archive of arrays and one text file."""
    (folder / "texts.txt").write_text("\n".join(pool.texts), encoding="utf-8")
    np.savez(folder / "texts.npz", target=pool.target, targets=pool.targets, group=pool.group)


def load(folder: Path) -> Pool:
    """Read the pool back."""
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\n")
    with np.load(folder / "texts.npz") as found:
        return Pool(texts, found["target"], found["targets"], found["group"])


def main() -> None:
    """Gather and embed the texts and train the vocabulary."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=16_000, help="pieces in the vocabulary")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not (args.work / "texts.npz").exists():
        corpus = corpora.load(args.work)
        rows = corpus.rows("train")
        captions = [canonicalise(text) for row in rows for text in corpus.captions[row]]
        save(gather(captions, corpus.scenes, args.seed), args.work)
    from overflight.models.teacher import read_words

    pool = load(args.work)
    train_pieces(count_words(pool, read_words()), args.work, args.size)
    print(f"{len(pool.texts)} texts, {len(pool.targets)} targets, {args.size} pieces")


if __name__ == "__main__":
    main()
