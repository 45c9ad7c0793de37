"""What a scaler in front of the exact filter costs in fidelity, measured with GStreamer's scalers on the processor.

A board's VIC scales a decoded picture to about twice the tower's side, and the exact filter does the rest. Its filters
cannot run here; GStreamer's nearest, bilinear, 4-tap and Lanczos bound them. Run:
`python -m overflight.bench.hardware_scale BUNDLE PICTURES…`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from overflight.runtime.bundle import Bundle
from overflight.runtime.engines import open_reference
from overflight.runtime.errors import UsageError
from overflight.runtime.evaluation.fidelity import measure
from overflight.runtime.planes import Planes
from overflight.runtime.resize import Resizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What each is called: the GStreamer elements that scale.
METHODS = {
    "nearest": "videoscale method=0 add-borders=false",
    "bilinear": "videoscale method=1 add-borders=false",
    "4-tap": "videoscale method=2 add-borders=false",
    "lanczos": "videoscale method=3 add-borders=false",
}
VIC = {f"VIC {number}": f"nvvidconv interpolation-method={number}" for number in range(1, 6)}


def has_vic() -> bool:
    """Whether this is a board whose converter GStreamer knows."""
    asked = ["gst-inspect-1.0", "--exists", "nvvidconv"]
    return shutil.which(asked[0]) is not None and subprocess.run(asked, check=False).returncode == 0


def scaled(picture: bytes, size: tuple[int, int], to: tuple[int, int], method: str) -> bytes:
    """Scale one I420 picture (even edges) of ``size`` to the width and height ``to`` with GStreamer."""
    # Stated on both sides: GStreamer takes BT.601 for less than 720 lines otherwise, and converts.
    caps = "video/x-raw,format=I420,framerate=1/1,pixel-aspect-ratio=1/1,colorimetry=bt709"
    with tempfile.NamedTemporaryFile() as file:  # a pipe would give the picture in pieces
        file.write(picture)
        file.flush()
        return _run(file.name, len(picture), caps, size, to, method)


def _run(path: str, length: int, caps: str, size: tuple[int, int], to: tuple[int, int], method: str) -> bytes:
    pipeline = [
        "gst-launch-1.0", "-q", "filesrc", f"location={path}", f"blocksize={length}", "!",
        f"{caps},width={size[0]},height={size[1]}", "!", *method.split(), "!",
        f"{caps},width={to[0]},height={to[1]}", "!", "fdsink", "fd=1",
    ]  # fmt: skip
    return subprocess.run(pipeline, capture_output=True, check=True).stdout


def planes(picture: bytes, width: int, height: int) -> Planes:
    """Read the planes of an I420 picture whose edges are multiples of eight, so that GStreamer adds no padding."""
    raw = np.frombuffer(picture, np.uint8)
    luma = raw[: width * height].reshape(height, width)
    chroma = raw[width * height :].reshape(2, height // 2, width // 2)
    return Planes(luma, (chroma[0], chroma[1]), "bt709")


def embed_through(
    bundle: Bundle, paths: list[Path], factor: float, methods: dict[str, str] = METHODS
) -> dict[str, NDArray[np.float32]]:
    """Embed every picture through each scaler at ``factor`` times the side, and "exact" without one."""
    import cv2

    resizer, engine = Resizer(bundle.manifest.resize), open_reference(bundle)
    side = resizer.side
    near = max(8, round(side * factor / 8) * 8)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ("exact", *methods)}
    out = np.empty((1, side, side, 3), np.uint8)
    for path in paths:
        pixels = cv2.imread(str(path))
        if pixels is None:
            raise UsageError(f"{path}: not a picture that OpenCV reads")
        height, width = (edge // 8 * 8 for edge in pixels.shape[:2])
        picture = cv2.cvtColor(np.ascontiguousarray(pixels[:height, :width]), cv2.COLOR_BGR2YUV_I420).tobytes()
        to = (max(8, round(width * near / height / 8) * 8), near)
        for name, several in found.items():
            if name == "exact":
                shown = planes(picture, width, height)
            else:
                shown = planes(scaled(picture, (width, height), to, methods[name]), *to)
            resizer.resize(shown, out[0], "rgb")
            several.append(np.array(engine.embed(out)[0]))
    engine.close()
    return {name: np.stack(several) for name, several in found.items()}


def main() -> None:
    """Print a row per scaler and factor: cosine mean and 1st percentile against the exact filter alone."""
    bundle, paths = Bundle.open(Path(sys.argv[1])), [Path(name) for name in sys.argv[2:]]
    methods = METHODS | (VIC if has_vic() else {})
    print("| scaled to | scaler | cosine, mean | 1st percentile | least |\n|---|---|--:|--:|--:|")
    for factor in (2.0, 3.0):
        answers = embed_through(bundle, paths, factor, methods)
        for name in methods:
            one = measure(answers["exact"], answers[name])
            row = (f"{one.cosine_mean:.5f}", f"{one.cosine_p1:.5f}", f"{one.cosine_min:.5f}")
            print(f"| {factor:g} x the side | {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
