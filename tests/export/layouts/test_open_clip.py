"""open_clip's layout: every setting that its loader reads, against open_clip's own loading, resizing and tokenising.

Covers: export/author_resnet.py, export/layouts/modified_resnet.py, export/layouts/open_clip_settings.py,
export/layouts/open_clip_tensors.py, export/layouts/timm_siglip.py, export/preprocessing.py,
export/reference_open_clip.py, export/tokenizer_files.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overflight.export.assemble import export
from overflight.export.checkpoint import Checkpoint
from overflight.export.describe import describe
from overflight.export.outside import picture
from overflight.runtime.errors import EngineError, UsageError

Build = Callable[..., Any]
pytestmark = pytest.mark.torch

_SIGLIP = {"image_size": 224, "timm_model_name": "vit_base_patch16_siglip_224", "timm_pool": "map", "timm_proj": "none"}
_CLIPA = {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
# One changed part each, as model_cfg(vision, text, top) and preprocess_cfg.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}, {}),
    "quick-gelu": ({}, {}, {"quick_gelu": True}, {}),
    "head-width-80": ({"width": 160, "head_width": 80}, {}, {}, {}),
    "mlp-ratio": ({"mlp_ratio": 3.7362}, {"mlp_ratio": 2.5}, {}, {}),
    "squash": ({}, {}, {"quick_gelu": True}, {"resize_mode": "squash"}),
    "longest": ({}, {}, {}, {"resize_mode": "longest", "fill_color": 0}),
    "bilinear": ({}, {}, {}, {"interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}),
    "layer-scale": ({"ls_init_value": 0.1}, {"ls_init_value": 0.3}, {}, {}),
    "logit-bias": ({}, {}, {"init_logit_bias": -10.0, "init_logit_scale": 2.3}, {}),
    "clipa": (_CLIPA, {"pool_type": "last", "no_causal_mask": True, "context_length": 32}, {}, {}),
    "average": ({"pool_type": "avg"}, {}, {}, {}),
    "first": ({}, {"pool_type": "first", "no_causal_mask": True}, {}, {}),
    "eos": ({}, {"pool_type": "eos", "eos_id": 49407}, {}, {}),
    "sin-cos": ({"pos_embed_type": "sin_cos_2d"}, {}, {}, {}),
    "eps": ({"norm_kwargs": {"eps": 1e-3}}, {"norm_kwargs": {"eps": 1e-2}}, {}, {}),
    "tanh": ({"act_kwargs": {"approximate": "tanh"}}, {"act_kwargs": {"approximate": "tanh"}}, {}, {}),
    "custom-text": ({}, {}, {"custom_text": True}, {}),
    "proj-bias": ({}, {"proj_bias": True}, {"custom_text": True}, {}),
    "no-projection": ({}, {"proj_type": "none", "width": 48, "heads": 2}, {}, {}),
    "resnet": ({"layers": [1, 2, 1, 1], "width": 16, "head_width": 32, "image_size": 64}, {}, {}, {}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_open_clip_agrees(
    variant: str, build: Build, save: Build, configure: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both towers equal open_clip's, which loads the files, resizes the pictures and tokenises the texts itself."""
    vision, text, top, preprocess = VARIANTS[variant]
    config = configure(vision, text, **top)
    if variant == "resnet":
        del config["vision_cfg"]["patch_size"]
    directory = save(build(config), config, preprocess=preprocess)
    made = export(directory, tmp_path / "bundle", prove_outside=True)
    proof = made.manifest.proven
    assert proof is not None
    assert proof.by.startswith("open_clip ")
    assert proof.image_cosine > 0.999999
    assert proof.text_max_abs < 1e-5
    assert made.manifest.activation == ("sigmoid" if variant == "logit-bias" else "softmax")


@pytest.mark.slow
def test_timms_siglip_agrees(build: Build, save: Build, configure: Build, tmp_path: Path) -> None:
    """timm's names, exact GELU and map pooling; texts are canonicalised and pooled at their last position."""
    pytest.importorskip("timm")
    text = {
        "context_length": 64,
        "width": 64,
        "heads": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    }
    text |= {"tokenizer_kwargs": {"clean": "canonicalize"}, "norm_kwargs": {"eps": 1e-6}}
    config = {"embed_dim": 768, "init_logit_bias": -10, "custom_text": True, "vision_cfg": _SIGLIP}
    config["text_cfg"] = {**configure()["text_cfg"], **text}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    made = export(save(build(config), config, preprocess=preprocess), tmp_path / "bundle", prove_outside=True)
    assert (made.manifest.family, made.manifest.activation, made.manifest.resize.fit) == ("siglip", "sigmoid", "squash")


def test_a_resnet_flies_in_fp32_and_is_not_calibrated(
    build: Build, save: Build, configure: Build, tmp_path: Path
) -> None:
    """The bundle embeds pictures; calibration refuses it with the reason, before it looks at any frame."""
    from overflight.calibration.calibrate import calibrate
    from overflight.runtime.overflight import embed
    from overflight.runtime.store import default_engine

    config = configure(*VARIANTS["resnet"][:2])
    del config["vision_cfg"]["patch_size"]
    made = export(save(build(config), config), tmp_path / "bundle")
    engine = default_engine(made)
    try:
        assert np.asarray(embed(engine, made, [picture(80, 120, 0)])).shape == (1, 48)
    finally:
        engine.close()
    with pytest.raises(UsageError, match="made of convolutions"):
        calibrate(made, [str(tmp_path)])


def test_a_proof_fails_where_the_resize_is_another(
    build: Build, save: Build, configure: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had the export ignored resize_mode, the proof from outside would end it and leave nothing."""
    import overflight.export.layouts.open_clip as layout

    monkeypatch.setattr(layout, "_FITS", {"squash": "crop"})
    config = configure()
    directory = save(build(config), config, preprocess={"resize_mode": "squash"})
    with pytest.raises(EngineError, match=r"open_clip .* disagrees: pictures have a cosine of 0\."):
        export(directory, tmp_path / "bundle", prove_outside=True)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("vision_cfg", "attentional_pool", True, "attentional_pool True"),
        ("vision_cfg", "pool_type", "none", "pool_type 'none'"),
        ("vision_cfg", "timm_model_name", "vit_pe_core_base_patch16_224", r"PE-Core rotates its positions \(RoPE\)"),
        ("vision_cfg", "timm_model_name", "fastvit_mci0", "MobileCLIP's FastViT"),
        ("vision_cfg", "timm_model_name", "naflexvit_base_patch16_siglip", "fixed-resolution"),
        ("vision_cfg", "qk_norm", True, "qk_norm True"),
        ("vision_cfg", "registers", 4, "registers: not a setting that an export knows"),
        ("vision_cfg", "act_kwargs", {"approximate": "sinh"}, "no such activation"),
        ("vision_cfg", "norm_kwargs", {"bias": False}, "expected only eps"),
        ("vision_cfg", "head_width", 256, "at least one head"),
        ("vision_cfg", "image_size", [56, 70], "expected a square"),
        ("vision_cfg", "image_size", 70, "the settings imply"),
        ("text_cfg", "hf_model_name", "xlm-roberta-base", "the text tower is xlm-roberta-base of transformers"),
        ("text_cfg", "embed_cls", True, "embed_cls True"),
        ("text_cfg", "heads", 3, "3 heads do not make"),
        ("text_cfg", "eos_id", "two", "Expected `int`, got `str`"),
        ("text_cfg", "tokenizer_kwargs", {"strip_sep_token": True}, "expected only clean"),
        ("text_cfg", "layers", 1, r"tensors belong to no part of the model .*transformer\.resblocks\.1"),
    ],
)
def test_what_cannot_be_exported_is_named(
    build: Build, save: Build, configure: Build, part: str, key: str, value: Any, said: str
) -> None:
    """One line with the setting and its value."""
    config = configure()
    directory = save(build(config), config)
    config[part][key] = value
    (directory / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UsageError, match=said) as caught:
        describe(Checkpoint.open(directory))
    assert "\n" not in str(caught.value)


def test_the_names_of_known_architectures_are_open_clips_facts(open_clip: Any) -> None:
    """Widths, heads, depths and MLPs of the table equal open_clip's own, for every name that it knows."""
    from overflight.export.layouts.open_clip_settings import read_architectures

    compared = 0
    for name, entry in read_architectures().items():
        theirs = open_clip.get_model_config(name)
        if theirs is None:
            assert name.startswith(("DFN-", "LongCLIP-"))
            continue
        compared += 1
        assert theirs["embed_dim"] == entry.embed_dim
        assert theirs.get("quick_gelu", False) == entry.quick_gelu
        for part, ours in (("vision_cfg", entry.vision), ("text_cfg", entry.text)):
            known = {"context_length": 77, "vocab_size": 49408, **ours}
            said = {key: value for key, value in theirs[part].items() if value is not None}
            assert {key: known.get(key) for key in said} == said
            assert ours.keys() <= said.keys()
    assert compared >= 18


@pytest.mark.parametrize("lora", [0, 2])
def test_a_fine_tuned_model_exports(build: Build, save: Build, configure: Build, tmp_path: Path, lora: int) -> None:
    """open_clip keeps query, key and value in one parameter, which a low-rank change has to reach too."""
    from PIL import Image
    from safetensors.numpy import load_file

    from overflight.models.finetune import Plan, finetune

    config, draw = configure(), np.random.default_rng(0)
    directory = save(build(config), config)
    for name, colour in (("river", (30, 60, 150)), ("forest", (40, 110, 50))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(16):
            coarse = np.clip(colour + draw.normal(0, 40, (7, 7, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(coarse).resize((60, 60)).save(tmp_path / "data" / name / f"{number}.png")
    plan = Plan(blocks=1, lora=lora, epochs=2, batch=8, rate=1e-2, holdout=0.4)
    finetune(directory, tmp_path / "data", tmp_path / "tuned", plan, report=lambda line: None)
    old, new = (load_file(folder / "open_clip_model.safetensors") for folder in (directory, tmp_path / "tuned"))
    changed = {name for name in old if not np.array_equal(old[name], new[name])}
    assert any(name.endswith("in_proj_weight") for name in changed)
    assert all(name.startswith("visual.transformer.") or not lora for name in changed)
    assert all(name.startswith("visual.") for name in changed)
