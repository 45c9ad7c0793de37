"""transformers and torch: the image tower as a model card's snippet calls it, eager, compiled, in bf16, or on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.peers.serve import LoadedPeer, PeerUnavailable

# variant -> device, number type, attention, compiled
_VARIANTS = {
    "fp32": ("cpu", "float32", "sdpa", False),
    "bf16": ("cpu", "bfloat16", "sdpa", False),
    "compiled": ("cpu", "float32", "sdpa", True),
    "cuda-fp16-eager": ("cuda", "float16", "eager", False),
    "cuda-fp16-sdpa": ("cuda", "float16", "sdpa", False),
    "cuda-fp16-compiled": ("cuda", "float16", "sdpa", True),
}


def load(job: dict[str, Any]) -> LoadedPeer:
    """Load the image tower alone, in the variant's number type."""
    import torch
    import transformers

    device, kind, attention, compiled = _VARIANTS[job["variant"]]
    if device == "cuda" and not torch.cuda.is_available():
        raise PeerUnavailable("no CUDA device here (torch.cuda.is_available() is False)")
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    config = transformers.AutoConfig.from_pretrained(job["checkpoint"])
    tower: Any = (
        transformers.CLIPVisionModelWithProjection if config.model_type == "clip" else transformers.SiglipVisionModel
    )
    model = tower.from_pretrained(job["checkpoint"], dtype=getattr(torch, kind), attn_implementation=attention)
    model = model.to(device).eval()
    if compiled:
        model = torch.compile(model)
    mean, std = normalisation(job["checkpoint"])
    shift, scale = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (mean, std))

    def embed(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255
            found = model(pixel_values=((pixels - shift) / scale).to(getattr(torch, kind)))
            vectors = found.image_embeds if config.model_type == "clip" else found.pooler_output
            answer: NDArray[np.float32] = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
            return answer

    return LoadedPeer(embed, {"torch": torch.__version__, "transformers": transformers.__version__})


def normalisation(checkpoint: str) -> tuple[list[float], list[float]]:
    """Read mean and standard deviation [3] from the checkpoint's ``preprocessor_config.json``."""
    import json
    from pathlib import Path

    settings = json.loads((Path(checkpoint) / "preprocessor_config.json").read_text(encoding="utf-8"))
    return settings["image_mean"], settings["image_std"]
