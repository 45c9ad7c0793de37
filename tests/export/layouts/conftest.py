"""Models of open_clip with random weights at small size, and CLIP's own tokenizer."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.export.torchvision_operators import define_missing_operators

Build = Callable[..., Any]

VISION = {"image_size": 56, "layers": 2, "width": 128, "patch_size": 14}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}


@pytest.fixture(scope="session")
def open_clip() -> Any:
    """open_clip, or a skip that says why it cannot be imported.

    ``OVERFLIGHT_PUBLISHERS`` names a folder that holds it where the environment itself must stay without torchvision.
    """
    if folder := os.environ.get("OVERFLIGHT_PUBLISHERS"):
        sys.path.append(folder)
    define_missing_operators()
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        pytest.skip(f"open_clip cannot be imported: {error}")
    return open_clip


@pytest.fixture(scope="session")
def torch() -> Any:
    """torch, or a skip."""
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory, open_clip: Any) -> Path:
    """CLIP's tokenizer.json, made of the vocabulary that open_clip ships."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    source = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(source.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(one, other) for one, other in (line.split() for line in lines)]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    model = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    ends = [(token, vocabulary[token]) for token in ("<|startoftext|>", "<|endoftext|>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
    )
    directory = tmp_path_factory.mktemp("clip-tokenizer")
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture
def build(open_clip: Any, torch: Any) -> Build:
    """Build a model of open_clip whose norms and biases are not at their plain start."""

    def build(config: dict[str, Any], seed: int = 1) -> Any:
        torch.manual_seed(seed)
        kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        model = kind(**{key: value for key, value in config.items() if key != "custom_text"}).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.numel() > 1:
                    strength = 0.5 if "bn3" in name else 0.1  # bn3 starts at zero
                    parameter.add_(strength * torch.randn_like(parameter) * (parameter.std() + 0.2))
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.add_(0.1 * torch.randn_like(buffer))
                if name.endswith("running_var"):  # small, so that a signal survives as in a trained network
                    buffer.mul_(0.02 * (1 + torch.rand_like(buffer)))
        return model

    return build


def config_of(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **top: Any) -> dict[str, Any]:
    """Return a model_cfg at small size with changes."""
    return {"embed_dim": 48, "vision_cfg": {**VISION, **(vision or {})}, "text_cfg": {**TEXT, **(text or {})}, **top}


@pytest.fixture
def configure() -> Callable[..., dict[str, Any]]:
    """Return a model_cfg at small size: ``configure(vision={...}, text={...}, quick_gelu=True)``."""
    return config_of


@pytest.fixture
def save(torch: Any, clip_tokenizer: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a model in open_clip's layout and return its directory: weights, settings, tokenizer."""

    def save(
        model: Any, config: dict[str, Any], *, preprocess: dict[str, Any] | None = None, weights: str = "safetensors"
    ) -> Path:
        from safetensors.torch import save_file

        directory = tmp_path / "checkpoint"
        directory.mkdir()
        tensors = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
        if weights == "safetensors":
            save_file(tensors, directory / "open_clip_model.safetensors")
        else:
            torch.save(model.state_dict(), directory / "open_clip_pytorch_model.bin")
        settings = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
        (directory / "open_clip_config.json").write_text(json.dumps(settings))
        (directory / "tokenizer.json").write_bytes((clip_tokenizer / "tokenizer.json").read_bytes())
        return directory

    return save
