"""OpenCLIP files become checkpoints that answer as the OpenCLIP model does."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from overflight.export.assemble import export
from overflight.export.convert import OPEN_CLIP
from overflight.export.fetch import fetched
from overflight.runtime.errors import MissingError, OverflightError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

_SIDE, _PATCH, _CONTEXT, _VOCABULARY = 32, 16, 10, 50
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def open_clip_model(activation: Callable[[Any], Any]) -> tuple[dict[str, Any], Callable[..., Any], Callable[..., Any]]:
    """An OpenCLIP ViT as its own code computes it, with torch's MultiheadAttention: weights and both towers."""
    nn = torch.nn
    torch.manual_seed(3)

    def transformer(width: int) -> Any:
        layers = []
        for _ in range(2):
            layer = nn.ModuleDict({"ln_1": nn.LayerNorm(width), "attn": nn.MultiheadAttention(width, width // 64)})
            layer["ln_2"] = nn.LayerNorm(width)
            layer["mlp"] = nn.ModuleDict({"c_fc": nn.Linear(width, 96), "c_proj": nn.Linear(96, width)})
            layers.append(layer)
        return nn.ModuleDict({"resblocks": nn.ModuleList(layers)})

    def through(blocks: Any, x: Any, mask: Any) -> Any:
        for block in blocks["resblocks"]:
            y = block["ln_1"](x).transpose(0, 1)
            x = x + block["attn"](y, y, y, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
            x = x + block["mlp"]["c_proj"](activation(block["mlp"]["c_fc"](block["ln_2"](x))))
        return x

    visual = nn.Module()
    visual.conv1 = nn.Conv2d(3, 128, _PATCH, _PATCH, bias=False)
    visual.class_embedding = nn.Parameter(torch.randn(128))
    visual.positional_embedding = nn.Parameter(torch.randn((_SIDE // _PATCH) ** 2 + 1, 128))
    visual.ln_pre, visual.ln_post = nn.LayerNorm(128), nn.LayerNorm(128)
    visual.transformer = transformer(128)
    visual.proj = nn.Parameter(torch.randn(128, 24))
    model = nn.Module()
    model.visual, model.transformer = visual, transformer(64)
    model.token_embedding, model.ln_final = nn.Embedding(_VOCABULARY, 64), nn.LayerNorm(64)
    model.positional_embedding = nn.Parameter(torch.randn(_CONTEXT, 64))
    model.text_projection = nn.Parameter(torch.randn(64, 24))
    model.logit_scale = nn.Parameter(torch.tensor(3.0))
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases start as ones and zeros, which would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))

    def embed_frames(frames: Any) -> Any:
        pixels = (torch.from_numpy(frames) / 255 - torch.tensor(_MEAN)) / torch.tensor(_STD)
        x = visual.conv1(pixels.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], 1) + visual.positional_embedding
        x = through(visual.transformer, visual.ln_pre(x), None)
        return visual.ln_post(x[:, 0]) @ visual.proj

    def embed_tokens(tokens: Any) -> Any:
        tokens = torch.from_numpy(tokens)
        mask = torch.full((_CONTEXT, _CONTEXT), float("-inf")).triu(1)
        x = through(model.transformer, model.token_embedding(tokens) + model.positional_embedding, mask)
        return model.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection

    return model.state_dict(), embed_frames, embed_tokens


def quick_gelu(x: Any) -> Any:
    return x * torch.sigmoid(1.702 * x)


def check(path: Path, bundle: Path, embed_frames: Callable[..., Any], embed_tokens: Callable[..., Any]) -> None:
    """Export a .pt and compare its golden answers with the model's own."""
    with fetched(str(path), bundle.parent) as (directory, name):
        made = export(directory, bundle, name=name)
    assert made.manifest.name == path.stem
    golden = np.load(made.file("golden.npz"))
    with torch.no_grad():
        for inputs, answers, embed in (
            ("frames", "frame_embeddings", embed_frames),
            ("tokens", "token_embeddings", embed_tokens),
        ):
            expected = torch.nn.functional.normalize(embed(golden[inputs]), dim=-1).numpy()
            assert np.abs(golden[answers] - expected).max() < 2e-6
    assert all(row.max_abs < 1e-6 for row in made.manifest.parity)
    assert [path.name for path in bundle.parent.glob(".*")] == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_exports_as_openai_descendants_are(tmp_path: Path, wrapped: bool) -> None:
    """Without a config beside it: quick GELU. A training checkpoint's wrapping is taken off."""
    weights, embed_frames, embed_tokens = open_clip_model(quick_gelu)
    if wrapped:
        weights = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}
    (tmp_path / "in").mkdir()
    torch.save(weights, tmp_path / "in" / "RemoteCLIP-tiny.pt")
    (tmp_path / "in" / "tokenizer.json").write_text("{}")
    check(tmp_path / "in" / "RemoteCLIP-tiny.pt", tmp_path / "out" / "bundle", embed_frames, embed_tokens)


def test_a_config_beside_it_is_heeded(tmp_path: Path) -> None:
    """open_clip_config.json without quick_gelu means plain GELU."""
    weights, embed_frames, embed_tokens = open_clip_model(torch.nn.functional.gelu)
    torch.save(weights, tmp_path / "laion.pt")
    (tmp_path / "tokenizer.json").write_text("{}")
    config = {"model_cfg": {"embed_dim": 24}, "preprocess_cfg": {"mean": _MEAN, "std": _STD}}
    (tmp_path / OPEN_CLIP).write_text(json.dumps(config))
    check(tmp_path / "laion.pt", tmp_path / "out" / "bundle", embed_frames, embed_tokens)


class Bomb:
    """An object whose unpickling would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    """A .pt that is not weights only is refused, and its code stays unrun."""
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Bomb(tmp_path / "ran")}))
    torch.save({"state_dict": Bomb(tmp_path / "ran")}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(UsageError, match="not a file of weights only"), fetched(str(tmp_path / name), tmp_path):
            pass
    assert not (tmp_path / "ran").exists()


def test_a_resnet_is_refused(tmp_path: Path) -> None:
    """RemoteCLIP's RN50 has no patches."""
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "RN50.pt")
    with pytest.raises(UsageError, match="only OpenCLIP's plain ViT"), fetched(str(tmp_path / "RN50.pt"), tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RN50.pt"]


def test_a_full_disk_leaves_nothing_of_a_conversion(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The copy that does not fit is gone, and the error is one line."""
    (tmp_path / "in").mkdir()
    torch.save(open_clip_model(quick_gelu)[0], tmp_path / "in" / "tiny.pt")
    request.getfixturevalue("small_disk")
    source = str(tmp_path / "in" / "tiny.pt")
    with pytest.raises(OverflightError, match="make room") as caught, fetched(source, tmp_path / "out"):
        pass
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_without_torch_the_extra_is_named(tmp_path: Path, no_torch: None) -> None:
    """What to install is said."""
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(MissingError, match=r"overflight\[torch\]"), fetched(str(tmp_path / "x.pt"), tmp_path):
        pass


@pytest.mark.slow
def test_the_real_open_clip_agrees(tmp_path: Path) -> None:
    """OpenCLIP's own ViT-B-32 of random weights, where open_clip is installed."""
    try:
        import open_clip  # type: ignore[import-not-found, unused-ignore]
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        pytest.skip(f"open_clip cannot be imported: {error}")
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-quickgelu").eval()
    torch.save(model.state_dict(), tmp_path / "ViT-B-32.pt")
    (tmp_path / "tokenizer.json").write_text("{}")

    def embed_frames(frames: Any) -> Any:
        pixels = (torch.from_numpy(frames) / 255 - torch.tensor(_MEAN)) / torch.tensor(_STD)
        return model.encode_image(pixels.permute(0, 3, 1, 2))

    check(
        tmp_path / "ViT-B-32.pt",
        tmp_path / "out" / "bundle",
        embed_frames,
        lambda t: model.encode_text(torch.from_numpy(t)),
    )
