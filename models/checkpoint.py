"""Write both trained towers as one Hugging Face SigLIP checkpoint directory in 16 bit."""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import SiglipModel

from overflight.models.towers import CONTEXT, MEAN, STD, Shape, configure, fold_gains

SPECIAL = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}


def merge_bridge(head: Tensor, bias: Tensor, bridge: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Fold the bridge into the text head: W (H x + b) + c is one linear layer again."""
    weight = bridge["linear.weight"]
    return weight @ head, weight @ bias + bridge["linear.bias"]


def assemble(image: Path, text: Path) -> SiglipModel:
    """Return one float32 model from the image run's averaged weights and the text tower's."""
    trained = torch.load(image, weights_only=True)["average"]
    vision = {k.removeprefix("vision."): v for k, v in trained.items() if k.startswith("vision.")}
    fold_gains(vision)
    bridge = {k.removeprefix("bridge."): v for k, v in trained.items() if k.startswith("bridge.")}
    saved = torch.load(text, weights_only=True)
    words = dict(saved["text"])
    if not saved.get("bridged", False):
        words["head.weight"], words["head.bias"] = merge_bridge(words["head.weight"], words["head.bias"], bridge)
    blocks = 1 + max(int(key.split(".")[2]) for key in vision if key.startswith("encoder.layers."))
    side = math.isqrt(vision["embeddings.position_embedding.weight"].shape[0])
    pieces = words["embeddings.token_embedding.weight"].shape[0]
    shape = Shape(image_px=14 * side, image_blocks=blocks, vocabulary=pieces)
    model = SiglipModel(configure(shape))
    model.vision_model.load_state_dict(vision)
    model.text_model.load_state_dict(words)
    with torch.no_grad():
        model.logit_scale.fill_(float(trained["scores.scale"]))
        model.logit_bias.fill_(float(trained["scores.bias"]))
    return model.eval()


def write_json(path: Path, value: object) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write(model: SiglipModel, pieces: Path, folder: Path) -> None:
    """Write weights, configuration, image processor and tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    side = model.config.vision_config.image_size
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(MEAN),
            "image_processor_type": "SiglipImageProcessor",
            "image_std": list(STD),
            "processor_class": "SiglipProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        },
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            **SPECIAL,
            "additional_special_tokens": [],
            "do_lower_case": True,
            "model_input_names": ["input_ids"],
            "model_max_length": CONTEXT,
            "processor_class": "SiglipProcessor",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
        },
    )
    write_json(folder / "special_tokens_map.json", SPECIAL)
    shutil.copy(pieces, folder / "spiece.model")
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    """Assemble and write the checkpoint; calibrate it afterwards."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--image", default="image", help="name of the image run")
    parser.add_argument("--text", default="text", help="name of the text run")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = assemble(args.work / f"{args.image}.pt", args.work / f"{args.text}.pt")
    write(model, args.work / "spiece.model", args.out)
    size = sum(path.stat().st_size for path in args.out.glob("*.safetensors"))
    print(f"{args.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
