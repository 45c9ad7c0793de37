"""Proof from outside: the publisher's own library loads the original, prepares a picture and a sentence, and agrees.

Unlike the proof of the graphs, nothing of this package prepares anything on the library's side: what the conversion
drops or assumes shows here.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from overflight.export.checkpoint import OPEN_CLIP
from overflight.export.encode import TextEncoder
from overflight.export.reference_maths import unit
from overflight.export.torchvision_operators import define_missing_operators
from overflight.runtime.bundle import OutsideProof
from overflight.runtime.engines.ort import load_library
from overflight.runtime.errors import EngineError, MissingError, UsageError
from overflight.runtime.resize import Resizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from overflight.export.checkpoint import Checkpoint
    from overflight.runtime.bundle import Bundle

    Vectors = NDArray[np.float64]

TEXTS = ("a satellite photo of a river", "An aerial view: houses, roads & a bridge_deck.")
# The tolerance of the graphs is 1e-5. Here pictures are resized too, where single pixels may round the other way: a
# grey level on one pixel moves an embedding by about 1e-3 at most. A wrong crop or activation moves it by 1e-2 or more.
IMAGE_COSINE, TEXT_MAX_ABS = 0.9999, 2e-5


def prove_from_outside(checkpoint: Checkpoint, bundle: Bundle) -> OutsideProof:
    """Compare both towers with open_clip or transformers, whichever reads this layout.

    Raises MissingError where the library is not installed, EngineError where it disagrees.
    """
    pictures = [picture(height, width, seed) for seed, (height, width) in enumerate(((200, 200), (170, 301)))]
    if checkpoint.adapted:
        raise UsageError(f"{checkpoint.source}: --prove cannot load a merged adapter; export without --prove")
    publisher = OpenClip(checkpoint) if checkpoint.layout == "open_clip" else _Transformers(checkpoint)
    try:
        with _quiet():
            theirs = publisher.embed(pictures, TEXTS)
    except (MissingError, UsageError):
        raise
    except Exception as error:  # whatever the publisher's library raises
        what = " ".join(str(error).split())[:300] or type(error).__name__
        raise EngineError(
            f"{publisher.name} cannot load {checkpoint.source} ({what}); export without --prove"
        ) from error
    images = _compare(_embed_pictures(bundle, pictures), theirs[0])
    with TextEncoder(bundle) as encoder:
        texts = _compare(encoder.encode(TEXTS), theirs[1])
    proof = OutsideProof(publisher.name, len(pictures), len(TEXTS), *images, *texts)
    if not (proof.image_cosine >= IMAGE_COSINE and proof.text_max_abs <= TEXT_MAX_ABS):
        raise EngineError(
            f"{publisher.name} disagrees: pictures have a cosine of {proof.image_cosine:.6f}, expected {IMAGE_COSINE}; "
            f"texts differ by {proof.text_max_abs:.1e}, expected {TEXT_MAX_ABS:.0e}; the bundle was not written"
        )
    return proof


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Paint a smooth picture with edges, whose resizing matters: uint8 ``[height, width, 3]`` RGB."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (7 + 3 * c + seed) + c) + np.cos(y / (11 + 5 * c) - seed) for c in range(3)]
    levels = 127 + 60 * np.stack(waves, axis=2)
    levels[height // 3 : height // 2, width // 4 : width // 2] = (30, 200, 90)
    painted: NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return painted


class OpenClip:
    """open_clip's own loading of a directory, or of a file into one of its architectures."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._library, self._torch = _load("open_clip", "open_clip_torch"), _load("torch", "torch")
        self._checkpoint = checkpoint
        self.name = f"open_clip {self._library.__version__}, torch {self._torch.__version__}"

    def embed(self, pictures: list[NDArray[np.uint8]], texts: tuple[str, ...]) -> tuple[Vectors, Vectors]:
        """Prepare and embed pictures and texts."""
        from PIL import Image

        with tempfile.TemporaryDirectory(prefix="overflight-") as scratch:
            model, prepare, tokenizer = self.create(Path(scratch))
        model.eval()
        with self._torch.no_grad():
            images = self._torch.stack([prepare(Image.fromarray(one)) for one in pictures])
            return (
                unit(model.encode_image(images).double().numpy()),
                unit(model.encode_text(tokenizer(list(texts))).double().numpy()),
            )

    def create(self, scratch: Path) -> tuple[Any, Any, Any]:
        """Return the model, the preparation of pictures and the tokenizer, as open_clip makes them."""
        (weights,), like = self._checkpoint.files, self._checkpoint.like
        if self._checkpoint.classes:
            opened = importlib.import_module("open_clip.openai").load_openai_model(str(weights), precision="fp32")
            size = opened.visual.image_size
            transform = importlib.import_module("open_clip.transform")
            prepare = transform.image_transform_v2(transform.PreprocessCfg(size=size), is_train=False)
            return opened, prepare, self._library.get_tokenizer("ViT-B-32")
        if like is not None:
            if like not in self._library.list_models():
                raise UsageError(f"--like {like}: open_clip knows no such architecture; export without --prove")
            model, prepare = self._library.create_model_from_pretrained(like, pretrained=str(weights))
            return model, prepare, self._library.get_tokenizer(like)
        for path in (self._checkpoint.file(OPEN_CLIP), *self._checkpoint.tokenizers()):
            (scratch / path.name).symlink_to(path.resolve())
        ending = ".safetensors" if weights.suffix == ".safetensors" else ".bin"  # open_clip looks for no .pt
        (scratch / f"open_clip_pytorch_model{ending}").symlink_to(weights.resolve())
        model, prepare = self._library.create_model_from_pretrained(f"local-dir:{scratch}")
        return model, prepare, self._library.get_tokenizer(f"local-dir:{scratch}")


class _Transformers:
    """transformers' own loading of a directory, with its image processor in Pillow's form and its tokenizer."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._library, self._torch = _load("transformers", "transformers"), _load("torch", "torch")
        self._checkpoint = checkpoint
        self.name = f"transformers {self._library.__version__}, torch {self._torch.__version__}"

    def embed(self, pictures: list[NDArray[np.uint8]], texts: tuple[str, ...]) -> tuple[Vectors, Vectors]:
        from PIL import Image

        directory = self._checkpoint.directory
        model = self._library.AutoModel.from_pretrained(directory).float().eval()
        processor = self._library.AutoImageProcessor.from_pretrained(directory, **self._pillow())
        tokenizer = self._library.AutoTokenizer.from_pretrained(self._checkpoint.tokenizer_directory)
        context = model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(texts), padding="max_length", max_length=context, truncation=True, return_tensors="pt")
        masked = {"attention_mask"} if model.config.model_type == "clip" else set()  # SigLIP was trained without one
        given = {key: value for key, value in tokens.items() if key in {"input_ids", *masked}}
        with self._torch.no_grad():
            images = [
                model.get_image_features(**processor(images=Image.fromarray(one), return_tensors="pt"))
                for one in pictures
            ]
            return (
                unit(np.concatenate([_features(one) for one in images])),
                unit(_features(model.get_text_features(**given))),
            )

    def _pillow(self) -> dict[str, Any]:
        """Ask for the image processor that uses Pillow, as the towers were trained; each version names it its way."""
        return {"backend": "pil"} if int(self._library.__version__.split(".")[0]) >= 5 else {"use_fast": False}


def _features(answer: Any) -> Vectors:
    """Return the embeddings of either version of transformers: a tensor, or an output with its pooled state."""
    tensor = getattr(answer, "pooler_output", answer)
    values: Vectors = tensor.double().numpy()
    return values


def _load(module: str, package: str) -> Any:
    define_missing_operators()
    try:
        return importlib.import_module(module)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        why = " ".join(str(error).split())[:200]
        raise MissingError(
            f"--prove needs {package} ({why}); run: pip install {package}, or export without it"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the libraries print while they load."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _embed_pictures(bundle: Bundle, pictures: list[NDArray[np.uint8]]) -> Vectors:
    """Resize as the runtime does, and run the bundle's image tower."""
    resizer = Resizer(bundle.manifest.resize)
    frames = np.empty((len(pictures), resizer.side, resizer.side, 3), np.uint8)
    for one, frame in zip(pictures, frames, strict=True):
        resizer.resize(one, frame)
    session = load_library().InferenceSession(bundle.file("image.onnx"), providers=["CPUExecutionProvider"])
    embeddings: Vectors = session.run(["embeddings"], {"frames": frames})[0].astype(np.float64)
    return embeddings


def _compare(ours: NDArray[Any], theirs: Vectors) -> tuple[float, float]:
    """Return the lowest cosine and the largest difference."""
    return float((ours * theirs).sum(axis=1).min()), float(np.abs(ours - theirs).max())
