"""The naive loop, as tutorials write it: OpenCV's picture, the processor, and both towers for every frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overflight.bench.peers.serve import LoadedPeer


def load(job: dict[str, Any]) -> LoadedPeer:
    """Load the whole model with its processor; every call goes from a BGR picture to the scores of all labels."""
    import cv2
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(job["checkpoint"], dtype=torch.float32).eval()
    pictures = transformers.AutoImageProcessor.from_pretrained(job["checkpoint"])
    texts = transformers.AutoTokenizer.from_pretrained(job["checkpoint"])
    context = model.config.text_config.max_position_embeddings

    def classify(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            picture = cv2.cvtColor(frames[0], cv2.COLOR_BGR2RGB)
            tokens = texts(
                list(job["labels"]), padding="max_length", max_length=context, truncation=True, return_tensors="pt"
            )
            pixels = pictures(images=picture, return_tensors="pt")
            found = model(pixel_values=pixels["pixel_values"], input_ids=tokens["input_ids"])
            scores: NDArray[np.float32] = torch.sigmoid(found.logits_per_image).numpy()
            return scores

    return LoadedPeer(classify, {"torch": torch.__version__, "transformers": transformers.__version__}, whole=True)
