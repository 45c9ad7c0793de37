"""Make a torchvision importable whose compiled library does not fit the installed torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

_KEPT: list[Any] = []  # torch forgets operators with the library object that named them


def define_missing_operators() -> None:
    """Name the operators that importing torchvision asks for, where its library was built for another torch.

    Package indexes carry torchvision's CUDA build only, and boards have a torch of their own: importing it then fails
    with "operator torchvision::nms does not exist", and transformers and open_clip fail with it. Both take image
    transforms from torchvision and none of its operators. Without torch, or where all fits, nothing is done.
    """
    found = importlib.util.find_spec("torchvision")
    if _KEPT or found is None or found.origin is None or importlib.util.find_spec("torch") is None:
        return
    import torch

    library = next(Path(found.origin).parent.glob("_C*.so"), None)
    try:
        torch.ops.load_library(str(library))
    except OSError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(operators)
