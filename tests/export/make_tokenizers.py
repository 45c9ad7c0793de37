"""Make the tiny tokenizers of the tests, and what transformers answers with them: python make_tokenizers.py.

They are committed, so that the tests need no transformers; run this again only to change them.
"""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

HERE = Path(__file__).parent / "fixtures"
WORDS = (
    "airport beach bridge church desert farmland forest meadow mountain park parking playground pond port river school "
    "square stadium viaduct ship harbour flooded village construction site solar panel warehouse road crossing dense "
    "medium sparse residential storage tanks bare land railway station baseball field commercial industrial"
)
FORMS = (
    "a remote sensing image of {}", "an aerial photograph of the {}", "a satellite photo of many {}", "{} from above",
    "many green trees are around the {}", "some buildings and cars are near a {}",
    "a low resolution jpeg corrupted aerial view of a hard to see {}",
    "several white planes are parked on the {} next to 3",
)  # fmt: skip
TEXTS = (
    "airport", "a remote sensing image of airport", "A Satellite Photo of the Storage-Tanks!", "  bare   land\t", "",
    "...", "_x_ (sub-meter)", "ships' wakes", "river, sea & lake", "café", "市场", "a photo of 市场 near a river",
    "NO. 7", "▁river", "dense residential " * 40, "don't", "Ωmega Σ",
)  # fmt: skip


def lines() -> list[str]:
    rng = random.Random(7)
    words = WORDS.split()
    return [form.format(" ".join(rng.sample(words, rng.randint(1, 3)))) for form in FORMS for _ in range(60)]


def make_siglip(directory: Path) -> None:
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines()), model_writer=model, vocab_size=256, model_type="unigram", pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, hard_vocab_limit=False, num_threads=1, minloglevel=2, normalization_rule_name="identity",
    )  # fmt: skip
    (directory / "spiece.model").write_bytes(model.getvalue())
    config = {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "model_max_length": 64, "pad_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def make_siglip2(directory: Path) -> None:
    """Make a file laid out as the published SigLIP 2 tokenizers are: Gemma's BPE, fixed padding, no lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trained.train_from_iterator(
        [word for line in lines() for word in line.replace(" ", " ▁").split(" ")],
        trainers.BpeTrainer(vocab_size=700, special_tokens=special + [f"<0x{i:02X}>" for i in range(256)]),
    )
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.add_special_tokens(special)
    tokenizer.enable_padding(direction="right", pad_id=0, pad_token="<pad>", length=64)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "Siglip2Tokenizer", "pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def make_clip(directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=special + [a + "</w>" for a in alphabet],
        end_of_word_suffix="</w>",
    )  # fmt: skip
    trained.train_from_iterator(lines(), trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    tokenizer.save_pretrained(directory)
    file = directory / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()), ensure_ascii=False))


def reference_ids(kind: str, directory: Path, texts: tuple[str, ...] | list[str]) -> list[list[int]]:
    """Ask transformers."""
    from transformers import CLIPTokenizer, Siglip2Tokenizer, SiglipTokenizer

    tokenizer = {"siglip": SiglipTokenizer, "siglip2": Siglip2Tokenizer, "clip": CLIPTokenizer}[kind].from_pretrained(
        str(directory)
    )
    context = {"siglip": 64, "siglip2": 64, "clip": 77}[kind]
    ids = tokenizer(list(texts), padding="max_length", max_length=context, truncation=True)["input_ids"]
    return [list(row) for row in ids]


def main() -> None:
    for kind, make in (("siglip", make_siglip), ("siglip2", make_siglip2), ("clip", make_clip)):
        directory = HERE / kind
        directory.mkdir(parents=True, exist_ok=True)
        make(directory)
        golden = [
            {"text": text, "ids": ids} for text, ids in zip(TEXTS, reference_ids(kind, directory, TEXTS), strict=True)
        ]
        rows = ",\n".join(json.dumps(row) for row in golden)
        (directory / "golden.json").write_text(f"[\n{rows}\n]\n")


if __name__ == "__main__":
    main()
