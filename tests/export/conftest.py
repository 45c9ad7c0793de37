"""Checkpoints of random weights, written without torch, and a bundle of two tiny graphs for labels."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from overflight.runtime.bundle import Bundle, Manifest, Resize, Tokenising, seal

Settings = dict[str, Any]
Fill = Callable[[int, int], NDArray[np.float32]]

_PIXELS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "rescale_factor": 1 / 255}
_SMALL = {"intermediate_size": 40, "num_hidden_layers": 2}
_TEXT = {**_SMALL, "hidden_size": 24, "num_attention_heads": 3, "vocab_size": 61, "max_position_embeddings": 12}
_IMAGE = {**_SMALL, "hidden_size": 16, "num_attention_heads": 2, "patch_size": 8}

# Between them: both generations, a side that its patches do not fill, every activation, both rules for a text's end.
TINY: dict[str, Settings] = {
    "siglip": {
        "model_type": "siglip",
        "vision_config": {**_IMAGE, "image_size": 30, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
        "text_config": {**_TEXT, "projection_size": 16, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
    },
    "siglip2": {
        "model_type": "siglip",
        "vision_config": {**_IMAGE, "image_size": 24},
        "text_config": {**_TEXT, "hidden_size": 16, "num_attention_heads": 2},
    },
    "clip": {
        "model_type": "clip",
        "projection_dim": 20,
        "vision_config": {**_IMAGE, "image_size": 24},
        "text_config": {**_TEXT, "eos_token_id": 2},
    },
    "clip-gelu": {
        "model_type": "clip",
        "projection_dim": 20,
        "vision_config": {**_IMAGE, "image_size": 24, "hidden_act": "gelu"},
        "text_config": {**_TEXT, "eos_token_id": 60, "hidden_act": "gelu"},
    },
}


def scattered(seed: int, size: int) -> NDArray[np.float32]:
    """Numbers of variance 1 that no library's generator can change (Weyl sequence, sum of three)."""
    index = np.arange(size, dtype=np.float64)[:, None] + 1
    steps = np.asarray([0.7548776662466927, 0.5698402909980532, 0.3247179572447460]) * (1 + seed)
    parts: NDArray[np.float64] = (index * steps) % 1.0
    numbers: NDArray[np.float32] = ((parts.sum(axis=1) - 1.5) * 2).astype(np.float32)
    return numbers


def random_numbers(seed: int, size: int) -> NDArray[np.float32]:
    """Normal numbers, quickly, for the real sizes."""
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


def _block(prefix: str, width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("q", "k", "v", "out"):
        yield f"{prefix}.self_attn.{part}_proj.weight", (width, width)
        yield f"{prefix}.self_attn.{part}_proj.bias", (width,)
    yield from _mlp(f"{prefix}.mlp", width, inner)
    yield from _norms(width, f"{prefix}.layer_norm1", f"{prefix}.layer_norm2")


def _mlp(prefix: str, width: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{prefix}.fc1.weight", (inner, width)
    yield f"{prefix}.fc1.bias", (inner,)
    yield f"{prefix}.fc2.weight", (width, inner)
    yield f"{prefix}.fc2.bias", (width,)


def _norms(width: int, *names: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in names:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)


def tensors(settings: Settings) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name every tensor of a model, with its shape, as transformers does."""
    image, text, clip = settings["vision_config"], settings["text_config"], settings["model_type"] == "clip"
    for prefix, half in (("vision_model", image), ("text_model", text)):
        for number in range(half["num_hidden_layers"]):
            yield from _block(f"{prefix}.encoder.layers.{number}", half["hidden_size"], half["intermediate_size"])
    width, patch = image["hidden_size"], image["patch_size"]
    positions = (image["image_size"] // patch) ** 2 + clip
    yield "vision_model.embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield "vision_model.embeddings.position_embedding.weight", (positions, width)
    yield from _norms(width, "vision_model.post_layernorm")
    deep = text["hidden_size"]
    yield "text_model.embeddings.token_embedding.weight", (text["vocab_size"], deep)
    yield "text_model.embeddings.position_embedding.weight", (text["max_position_embeddings"], deep)
    yield from _norms(deep, "text_model.final_layer_norm")
    yield "logit_scale", () if clip else (1,)
    if clip:
        yield "vision_model.embeddings.class_embedding", (width,)
        yield from _norms(width, "vision_model.pre_layrnorm")
        yield "visual_projection.weight", (settings["projection_dim"], width)
        yield "text_projection.weight", (settings["projection_dim"], deep)
        return
    yield "vision_model.embeddings.patch_embedding.bias", (width,)
    yield "text_model.head.weight", (width, deep)
    yield "text_model.head.bias", (width,)
    yield "logit_bias", (1,)
    head = "vision_model.head"
    yield f"{head}.probe", (1, 1, width)
    yield f"{head}.attention.in_proj_weight", (3 * width, width)
    yield f"{head}.attention.in_proj_bias", (3 * width,)
    yield f"{head}.attention.out_proj.weight", (width, width)
    yield f"{head}.attention.out_proj.bias", (width,)
    yield from _norms(width, f"{head}.layernorm")
    yield from _mlp(f"{head}.mlp", width, image["intermediate_size"])


def _values(name: str, shape: tuple[int, ...], seed: int, fill: Fill) -> NDArray[np.float32]:
    """Scale noise as a trained model's tensors are: products keep the variance, norms are near one."""
    values = fill(seed, math.prod(shape)).reshape(shape)
    if len(shape) < 2 or "position" in name:
        values *= np.float32(0.1)
    else:
        values /= np.float32(math.sqrt(math.prod(shape[1:])))
    if "norm" in name and name.endswith("weight"):
        values += np.float32(1)
    return values


def _encode(array: NDArray[np.float32], dtype: str) -> bytes:
    match dtype:
        case "F32":
            return array.tobytes()
        case "F16":
            return array.astype(np.float16).tobytes()
        case "BF16":
            return (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    raise AssertionError(dtype)


def _write_file(path: Path, named: list[tuple[str, tuple[int, ...], int]], dtype: str, fill: Fill) -> None:
    """Write one safetensors file, a tensor at a time. https://github.com/huggingface/safetensors#format"""
    header, position = {}, 0
    for name, shape, _ in named:
        size = math.prod(shape) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (position, position + size)}
        position += size
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape, seed in named:
            file.write(_encode(_values(name, shape, seed, fill), dtype))


# What each family's tokenizer puts before and after a text, with ids that every tiny tower knows.
_FRAMES: dict[str, tuple[dict[str, int], tuple[str, ...], str]] = {
    "siglip": ({"<pad>": 0, "</s>": 1, "<unk>": 2}, (), "</s>"),
    "siglip2": ({"<pad>": 0, "<eos>": 1, "<unk>": 2}, (), "<eos>"),
    "clip": ({"<unk>": 2, "<|startoftext|>": 59, "<|endoftext|>": 60}, ("<|startoftext|>",), "<|endoftext|>"),
}


def write_tokenizer(directory: Path, kind: str) -> None:
    """Write a tokenizer.json that splits a text at its spaces, and ends it as ``kind`` does."""
    special, before, end = _FRAMES[kind]
    words = {word: number for number, word in enumerate(("a", "photo", "of", "river", "forest", "roads"), start=5)}
    template = [{"SpecialToken": {"id": token, "type_id": 0}} for token in before]
    template += [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": end, "type_id": 0}}]
    tokens = {
        token: {"id": token, "ids": [number], "tokens": [token]}
        for token, number in special.items()
        if token != "<unk>"
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for token, number in special.items()],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": template,
            "special_tokens": tokens,
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {**special, **words}, "unk_token": "<unk>"},
    }
    (directory / "tokenizer.json").write_text(json.dumps(content))
    if kind == "siglip2":
        (directory / "tokenizer_config.json").write_text('{"padding_side": "right"}')


def write_checkpoint(
    directory: Path, settings: Settings, *, dtype: str = "F32", shards: int = 1, fill: Fill = scattered
) -> Path:
    """Write a whole checkpoint directory."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(settings))
    side, clip = settings["vision_config"]["image_size"], settings["model_type"] == "clip"
    square = {"height": side, "width": side}
    prepared = {**_PIXELS, "resample": 3 if clip else 2, "do_normalize": True, "size": square}
    if clip:
        prepared |= {"size": {"shortest_edge": side}, "crop_size": square, "do_center_crop": True}
    (directory / "preprocessor_config.json").write_text(json.dumps(prepared))
    write_tokenizer(directory, settings["model_type"])
    named = [(name, shape, seed) for seed, (name, shape) in enumerate(tensors(settings))]
    if shards == 1:
        _write_file(directory / "model.safetensors", named, dtype, fill)
        return directory
    placed: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = named[shard::shards]
        _write_file(directory / file, part, dtype, fill)
        placed |= {name: file for name, _, _ in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return directory


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write one of the TINY checkpoints: ``tiny("siglip", dtype="BF16", shards=3)``; ``text`` changes its text."""

    def write(family: str, *, text: Settings | None = None, **options: Any) -> Path:
        settings = {**TINY[family], "text_config": {**TINY[family]["text_config"], **(text or {})}}
        return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / family, settings, **options)

    return write


@pytest.fixture
def write() -> Callable[..., Path]:
    """Write a checkpoint of any size: ``write(directory, settings, dtype="F16")``."""

    def write(directory: Path, settings: Settings, *, dtype: str) -> Path:
        return write_checkpoint(directory, settings, dtype=dtype, fill=random_numbers)

    return write


@pytest.fixture
def put_tokenizer() -> Callable[[Path, str], None]:
    """Write a tokenizer of one family into a directory."""
    return write_tokenizer


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch and transformers unavailable."""
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "transformers", None)


WIDTH = 32
VOCABULARY = 256
FIXTURES = Path(__file__).parent / "fixtures"


def text_graph(table: NDArray[np.float32], context: int) -> bytes:
    """Return a text tower: the unit mean of its tokens' embeddings, the padding weightless."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["each"]),
        helper.make_node("ReduceMean", ["each", "axes"], ["mean"], keepdims=0),
        helper.make_node("ReduceL2", ["mean", "axes"], ["length"], keepdims=1),
        helper.make_node("Div", ["mean", "length"], ["embeddings"]),
    ]
    weights = [onnx.numpy_helper.from_array(table, "table"), onnx.numpy_helper.from_array(np.array([1]), "axes")]
    inputs = [helper.make_tensor_value_info("tokens", kind.INT64, ["N", context])]
    return _model(nodes, weights, inputs, table.shape[1])


def image_graph(side: int) -> bytes:
    """Return an image tower: the mean colour, spread over the embedding's first three places, at unit length."""
    import onnx

    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["frames"], ["pixels"], to=kind.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "spread"], ["wide"]),
        helper.make_node("ReduceL2", ["wide", "axes"], ["length"], keepdims=1),
        helper.make_node("Div", ["wide", "length"], ["embeddings"]),
    ]
    weights = [
        onnx.numpy_helper.from_array(np.array([1, 2]), "sides"),
        onnx.numpy_helper.from_array(np.eye(3, WIDTH, dtype=np.float32), "spread"),
        onnx.numpy_helper.from_array(np.array([1]), "axes"),
    ]
    inputs = [helper.make_tensor_value_info("frames", kind.UINT8, ["N", side, side, 3])]
    return _model(nodes, weights, inputs, WIDTH)


def _model(nodes: list[Any], weights: list[Any], inputs: list[Any], width: int) -> bytes:
    import onnx

    outputs = [onnx.helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["N", width])]
    graph = onnx.helper.make_graph(nodes, "tower", inputs, outputs, weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle with the tiny SigLIP tokenizer and two tiny towers of random weights."""
    for library in ("onnx", "onnxruntime", "sentencepiece"):
        pytest.importorskip(library)
    directory = tmp_path_factory.mktemp("bundle")
    table = np.random.default_rng(3).standard_normal((VOCABULARY, WIDTH), dtype=np.float32)
    table[1] = 0  # </s>, which pads
    table[2] = 1  # <unk>: any constant, so that no text is a vector of zeros
    table[1, 0] = 1e-3
    (directory / "text.onnx").write_bytes(text_graph(table, 64))
    (directory / "image.onnx").write_bytes(image_graph(16))
    shutil.copytree(FIXTURES / "siglip", directory / "tokenizer", ignore=shutil.ignore_patterns("golden.json"))
    return seal(
        directory,
        Manifest(
            schema=1,
            name="tiny-random",
            family="siglip",
            activation="sigmoid",
            width=WIDTH,
            logit_scale=2.0,
            logit_bias=-3.0,
            resize=Resize(16, "bicubic", "squash"),
            tokenising=Tokenising("siglip", 64, VOCABULARY),
            tower="t" * 64,
            opset=20,
            exporter="tests",
            parity=(),
            files={},
        ),
    )


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Limit files to 40 kB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)
