"""The proof that ends every export: golden vectors from a reference, parity, and inputs that must matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from overflight.export.tower import EndPool
from overflight.runtime.bundle import Parity
from overflight.runtime.engines.ort import load_library
from overflight.runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from overflight.export.reference import Reference
    from overflight.export.tower import Model, TextTower

    Floats = NDArray[np.float32]

GOLDEN = "golden.npz"
TOLERANCE = 1e-5  # largest absolute difference of unit embeddings that still counts as the same model


@dataclass(frozen=True)
class Golden:
    """Inputs and the reference's answers to them.

    ``frames`` uint8 ``[N, S, S, 3]``, ``frame_embeddings`` float32 ``[N, D]``; ``tokens`` int64 ``[N, context]``,
    ``token_embeddings`` float32 ``[N, D]``.
    """

    frames: NDArray[np.uint8]
    frame_embeddings: Floats
    tokens: NDArray[np.int64]
    token_embeddings: Floats

    def save(self, path: Path) -> None:
        """Write ``golden.npz``."""
        np.savez_compressed(path, **vars(self))


def prove(
    directory: Path, model: Model, reference: Reference, report: Callable[[float], None] = lambda share: None
) -> tuple[Parity, Parity]:
    """Run the authored graphs in ``directory`` against ``reference`` and leave ``golden.npz`` next to them.

    Raises EngineError where an embedding differs by more than 1e-5, is not of unit length, or does not notice a
    changed pixel or token.
    """
    frames, tokens = golden_frames(model.image.side), golden_tokens(model.text)
    frame_embeddings = reference.embed_frames(frames, lambda share: report(share * 0.6)).astype(np.float32)
    report(0.6)
    image = _replay(directory, "image", frames, frame_embeddings, reference.name)
    report(0.7)
    token_embeddings = reference.embed_tokens(tokens, lambda share: report(0.7 + share * 0.2)).astype(np.float32)
    report(0.9)
    text = _replay(directory, "text", tokens, token_embeddings, reference.name)
    Golden(frames, frame_embeddings, tokens, token_embeddings).save(directory / GOLDEN)
    report(1.0)
    return image, text


def golden_frames(side: int) -> NDArray[np.uint8]:
    """Paint three frames ``[3, side, side, 3]``: a slope, a patchwork and noise, the same on every machine."""
    ramp = np.arange(side) * 255 // max(side - 1, 1)
    slope = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 255 - ramp[:, None]), axis=2)
    cells = _mix(np.arange(8 * 8 * 3)).reshape(8, 8, 3) % 256
    index = np.arange(side) * 8 // side
    noise = _mix(np.arange(side * side * 3)).reshape(side, side, 3) % 256
    return np.stack([slope, cells[index][:, index], noise]).astype(np.uint8)


def golden_tokens(tower: TextTower) -> NDArray[np.int64]:
    """Make three valid rows of token ids ``[3, context]``: short, half full, full; each ends and is padded."""
    context, vocabulary = tower.encoder.length, tower.vocabulary
    match tower.encoder.pool:
        case EndPool(end=None):
            end = vocabulary - 1
        case EndPool(end=int(end)):
            pass
        case _:
            end = 1  # SentencePiece's </s>, with which SigLIP also pads
    words: NDArray[np.int64] = 2 + _mix(np.arange(3 * context)).reshape(3, context) % max(
        (end if end > 1 else vocabulary) - 2, 1
    )
    for row, length in zip(words, (min(4, context), (context + 1) // 2, context), strict=True):
        row[length - 1 :] = end
    return words


def _mix(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Scatter numbers (the finaliser of MurmurHash3): noise that no library's generator can change."""
    h: NDArray[np.uint32] = x.astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h ^= h >> np.uint32(shift)
        h *= np.uint32(factor)
    h ^= h >> np.uint32(16)
    return h.astype(np.int64)


def _replay(
    directory: Path, tower: Literal["image", "text"], inputs: NDArray[Any], expected: Floats, reference: str
) -> Parity:
    run = _open(directory / f"{tower}.onnx")
    got = run(inputs)
    what = f"{tower}.onnx"
    if not np.all(np.isfinite(got)) or np.any(np.abs(np.linalg.norm(got, axis=1) - 1) > TOLERANCE):
        raise EngineError(f"{what}: an embedding is not of unit length; the checkpoint's weights may be damaged")
    difference = float(np.abs(got - expected).max())
    if not difference <= TOLERANCE:
        raise EngineError(
            f"{what}: differs from {reference} by {difference:.1e}, expected at most {TOLERANCE:.0e}; "
            "the model is not one that can be exported faithfully"
        )
    if np.array_equal(run(_change(inputs[:1])), run(inputs[:1])):
        raise EngineError(f"{what}: a changed input changes nothing; the checkpoint's weights may be damaged")
    return Parity(tower=tower, reference=reference, max_abs=difference, samples=len(inputs))


def _change(inputs: NDArray[Any]) -> NDArray[Any]:
    """Change one token, or one pixel in the middle."""
    changed: NDArray[Any] = inputs.copy()
    if inputs.ndim == 2:
        changed[0, 0] = 3 if inputs[0, 0] == 2 else 2
    else:
        middle = inputs.shape[1] // 2
        changed[0, middle, middle] ^= 255
    return changed


def _open(path: Path) -> Callable[[NDArray[Any]], Floats]:
    """Open a graph in ONNX Runtime on the CPU, as sparing of memory as it goes."""
    onnxruntime = load_library()
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(inputs: NDArray[Any]) -> Floats:
        answer: Floats = session.run(["embeddings"], {name: inputs})[0]
        return answer

    return run
