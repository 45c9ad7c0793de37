"""Write a checkpoint of another input size from the same weights: the grid of positions is interpolated.

    python -m overflight.models.resize models/default 98 small

The tower was trained at 98 to 224 px: a smaller input is faster, a larger one sees more in a picture that holds more.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from overflight.models.towers import resize_grid
from overflight.runtime.errors import UsageError

POSITIONS = "vision_model.embeddings.position_embedding.weight"
# Decisions are bound to the weights, so they are fitted again.
BOUND = "decisions.json"


def resize(folder: Path, side_px: int, out: Path) -> None:
    """Write the SigLIP checkpoint in ``folder`` for inputs of ``side_px`` to ``out``, which must not exist.

    Raises UsageError where the side is not a multiple of the patch.
    """
    config = json.loads((folder / "config.json").read_text())
    patch_px = config["vision_config"]["patch_size"]
    if side_px <= 0 or side_px % patch_px:
        raise UsageError(f"a side of {side_px} px does not divide into patches of {patch_px}; give a multiple of them")
    shutil.copytree(folder, out, ignore=shutil.ignore_patterns(BOUND))
    weights = load_file(folder / "model.safetensors")
    grid = weights[POSITIONS]
    before = round(len(grid) ** 0.5)
    resized = resize_grid(grid.float().numpy().reshape(before, before, -1), side_px // patch_px)
    weights[POSITIONS] = resized.to(grid.dtype)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, out / "model.safetensors", {"format": "pt"}
    )
    config["vision_config"]["image_size"] = side_px
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    processor = out / "preprocessor_config.json"
    settings = json.loads(processor.read_text())
    settings["size"] = {"height": side_px, "width": side_px}
    processor.write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Write a checkpoint of another input size."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("side_px", type=int)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    resize(args.checkpoint, args.side_px, args.out)


if __name__ == "__main__":
    main()
