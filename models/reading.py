"""Read a checkpoint directory through transformers and embed images and texts as any user would."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from transformers import SiglipModel, SiglipTokenizer

from overflight.models import augment, forward
from overflight.models.scenes import fill
from overflight.models.tokens import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor, nn

    from overflight.models.degrade import Spoiler


class Checkpoint:
    """A SigLIP checkpoint with its tokenizer and its preprocessing, ready to embed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = SiglipTokenizer.from_pretrained(folder)
        self.px = int(self.model.config.vision_config.image_size)
        self.scale = math.exp(self.model.logit_scale.item())
        self.bias = self.model.logit_bias.item()

    def embed_images(self, frames: np.ndarray, spoil: Spoiler | None = None, half: bool = False) -> np.ndarray:
        """Return unit embeddings `[N, D]` of uint8 frames, spoiled first when asked.

        With `half` the tower runs in the quick precision of `forward`, for bulk work only.
        """
        vision = self.model.vision_model

        def embed(start: int) -> np.ndarray:
            batch = [frame if spoil is None else spoil(frame) for frame in frames[start : start + 32]]
            pixels = augment.prepare(batch, self.px)
            with torch.inference_mode():
                run = forward.encode_images if half else read_pooled
                out = run(pixels, vision)
            return np.asarray(out.numpy())

        return normalise(np.concatenate(spread(embed, range(0, len(frames), 32))))

    def embed_texts(self, texts: list[str], half: bool = False) -> np.ndarray:
        """Return unit embeddings `[N, D]` of texts."""
        tower = self.model.text_model

        def embed(start: int) -> np.ndarray:
            coded = self.tokenizer(
                texts[start : start + 64],
                padding="max_length",
                max_length=CONTEXT,
                truncation=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                if half:
                    out = forward.encode_texts(coded["input_ids"], tower)
                else:
                    out = tower(input_ids=coded["input_ids"]).pooler_output
            return np.asarray(out.numpy())

        return normalise(np.concatenate(spread(embed, range(0, len(texts), 64))))

    def embed_bank(self, names: list[str], templates: tuple[str, ...]) -> np.ndarray:
        """Return the ensembled bank `[N, D]`: the mean of unit prompts, made unit again."""
        prompts = [fill(template, name) for name in names for template in templates]
        vectors = self.embed_texts(prompts).reshape(len(names), len(templates), -1)
        return normalise(vectors.mean(1))

    def process(self, frame: np.ndarray) -> np.ndarray:
        """Return transformers' own preprocessing of a frame, to check ours against."""
        from transformers import SiglipImageProcessor

        processor = SiglipImageProcessor.from_pretrained(self.folder)
        coded = processor(images=Image.fromarray(frame), return_tensors="np")
        pixels: np.ndarray = coded["pixel_values"][0]
        return pixels


def read_pooled(pixels: Tensor, vision: nn.Module) -> Tensor:
    """Return transformers' own float32 image embeddings `[N, D]`."""
    return vision(pixel_values=pixels).pooler_output


def spread(work: Callable[[int], np.ndarray], starts: Iterable[int]) -> list[np.ndarray]:
    """Run independent parts on one single-threaded worker per core, keeping their order."""
    torch.set_num_threads(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, starts))


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Return rows of unit length."""
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
