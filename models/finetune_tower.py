"""The image tower of a checkpoint in torch, for fine-tuning: opened, partly set free, and written back."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from overflight.export.checkpoint import CONFIG, OPEN_CLIP, OPEN_CLIP_OWN, TRANSFORMERS_WEIGHTS
from overflight.export.default_decisions import DECISIONS
from overflight.export.outside import OpenClip
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from overflight.export.checkpoint import Checkpoint

_IMAGE = ("vision_model.", "visual.", "visual_projection.")
_BLOCK = re.compile(r"\.(?:encoder\.layers|resblocks|trunk\.blocks)\.(\d+)\.")
_BEFORE = (
    "embed",
    "conv1",
    "positional",
    "ln_pre",
    "pre_layrnorm",
    "cls_token",
)  # what a picture meets before the blocks


class LowRank(nn.Module):  # type: ignore[misc]
    """What LoRA adds to a weight ``[N, K]``: B · A of a small rank (Hu et al., 2021), nothing at the start."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        outer, inner = weight.shape
        self.down = nn.Parameter(torch.randn(rank, inner, device=weight.device) / rank**0.5)
        self.up = nn.Parameter(torch.zeros(outer, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with what was learned."""
        return weight + self.up @ self.down


class Tower:
    """A whole model of which only a part of the image tower is trained; texts keep their place."""

    def __init__(self, checkpoint: Checkpoint, device: str) -> None:
        if checkpoint.adapted:
            raise UsageError(f"{checkpoint.source}: an adapter is not trained further; merge it into its base first")
        self._checkpoint = checkpoint
        self.model = _open(checkpoint).float().to(device).eval()
        self.model.requires_grad_(False)
        self.device = device
        self._lowered: list[tuple[nn.Module, str]] = []

    def embed(self, pixels: Tensor) -> Tensor:
        """Return unit embeddings ``[N, D]`` of normalised pixels ``[N, 3, S, S]``."""
        encode = getattr(self.model, "encode_image", None) or self.model.get_image_features
        answer = encode(pixels)
        return nn.functional.normalize(getattr(answer, "pooler_output", answer), dim=-1)

    def free_blocks(self, count: int) -> list[nn.Parameter]:
        """Let the last ``count`` blocks be trained, and what comes after them. Raises UsageError for too many."""
        named = [(name, one) for name, one in self.model.named_parameters() if name.startswith(_IMAGE)]
        places = [int(found[1]) for name, _ in named if (found := _BLOCK.search(name))]
        if not places or count > 1 + max(places):
            raise UsageError(
                f"--blocks {count}: the image tower has {1 + max(places, default=-1)} blocks that can be trained"
            )
        first = 1 + max(places) - count
        free = [one for name, one in named if _comes_after(name, first)]
        for one in free:
            one.requires_grad_(True)
        return free

    def lower_ranks(self, rank: int) -> list[nn.Parameter]:
        """Give every matrix of the image blocks a LoRA of this rank; return its parameters."""
        added: list[nn.Parameter] = []
        for path, module in list(self.model.named_modules()):
            if not path.startswith(_IMAGE) or _BLOCK.search(f"{path}.") is None:
                continue
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight.ndim == 2:
                    part = LowRank(weight, rank)
                    parametrize.register_parametrization(module, name, part, unsafe=True)
                    self._lowered.append((module, name))
                    added += part.parameters()
        if not added:
            raise UsageError(f"--lora {rank}: the image tower has no blocks of matrices")
        return added

    def write(self, folder: Path) -> Path:
        """Write a checkpoint like the one that was read, and return what to export: the folder, or the file in it."""
        for module, name in self._lowered:
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        self._lowered.clear()
        source, own = self._checkpoint.source, self._checkpoint.layout == "open_clip"
        folder.mkdir(parents=True)
        weights = folder / (OPEN_CLIP_OWN[0] if own else TRANSFORMERS_WEIGHTS[0])
        _save(self.model, self._checkpoint, weights)
        if not source.is_dir():
            return weights
        keep = {OPEN_CLIP} if own else {CONFIG}
        for path in source.iterdir():
            settings = path.suffix in (".json", ".txt", ".model") and not path.name.endswith(".index.json")
            if path.is_file() and (path.name in keep or settings) and path.name != DECISIONS:
                shutil.copyfile(path, folder / path.name)
        return folder


def _comes_after(name: str, first: int) -> bool:
    block = _BLOCK.search(name)
    return int(block[1]) >= first if block else not any(part in name for part in _BEFORE)


def _open(checkpoint: Checkpoint) -> nn.Module:
    if checkpoint.layout == "open_clip":
        with tempfile.TemporaryDirectory(prefix="overflight-") as scratch:
            return OpenClip(checkpoint).create(Path(scratch))[0]
    from transformers import AutoModel

    return AutoModel.from_pretrained(checkpoint.directory, dtype=torch.float32)


def _save(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Write the tensors that the source has, in its precision where it is one of 16 bit."""
    from safetensors.torch import save_file

    state: dict[str, Any] = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    kinds = {checkpoint.dtype(name) for name in state if name in checkpoint.names}
    half = {"F16": torch.float16, "BF16": torch.bfloat16}.get(
        next(iter(kinds)) if len(kinds) == 1 else "", torch.float32
    )
    missing = [name for name in state if name not in checkpoint.names and not name.endswith("position_ids")]
    if missing:
        raise UsageError(f"{checkpoint.source}: the library names a tensor {missing[0]!r} that this checkpoint has not")
    kept = {name: value.to(half).contiguous().clone() for name, value in state.items() if name in checkpoint.names}
    save_file(kept, path, metadata={"format": "pt"})
