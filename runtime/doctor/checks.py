"""The check before a flight: everything that would end or cripple one, found on the ground, each with its cure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from overflight.jetson.board import identify
from overflight.jetson.checks import Check, check_device
from overflight.jetson.telemetry import on_device
from overflight.runtime import paths
from overflight.runtime.bundle import Bundle
from overflight.runtime.doctor import probe
from overflight.runtime.doctor.installation import Installation, extensions, needs_numpy_1, search
from overflight.runtime.doctor.memory_plan import plan_build, plan_flight, usable_here
from overflight.runtime.doctor.signatures import check_signatures
from overflight.runtime.doctor.tower import read_tower
from overflight.runtime.errors import OverflightError
from overflight.runtime.json_input import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from overflight.runtime.engines import Precision

_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_PROVIDER = re.compile(r"^libonnxruntime_providers_(cuda|tensorrt)\.so$")
_Kind = TypeVar("_Kind", bound=msgspec.Struct)
_BUILT: tuple[Precision, ...] = ("fp16", "int8")  # what TensorRT is given, where the bundle has it
_ENGINES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


@dataclass(frozen=True)
class Health:
    """What the doctor found, in the order in which it should be fixed."""

    checks: tuple[Check, ...]

    @property
    def fit(self) -> bool:
        """Whether a flight can be expected to succeed."""
        return all(check.verdict != "fail" for check in self.checks)


def examine(
    bundle: Path, flights: Path, *, root: Path = Path("/"), home: Path | None = None, user: str | None = None
) -> Health:
    """Examine this machine, or the copy of one whose file system lies under ``root``.

    ``bundle`` is the bundle to fly with, ``flights`` where the flight directory will be written, ``home`` the engine
    store's folder (``$OVERFLIGHT_HOME``).
    """
    it = Installation.here() if root == Path("/") else Installation.below(root)
    home = home or paths.home()
    software = [check_python(it), check_numpy(it), check_opencv(it), *check_engine_libraries(it)]
    cargo = [check_signatures(home), check_bundle(bundle), check_engines(it, bundle, home), check_plan(it, bundle)]
    return Health((*check_device(root, flights, user), *software, *cargo))


def check_python(it: Installation) -> Check:
    """Is this the Python that the release's own TensorRT and OpenCV are made for?"""
    board = identify(it.root)
    said = f"Python {it.python[0]}.{it.python[1]}"
    if it.python < (3, 10):
        return Check(
            "python", "fail", f"{said}; 3.10 or later is needed", "sudo apt install python3.10 python3.10-venv"
        )
    wanted = board.jetpack.python if board and board.jetpack else None
    if wanted and wanted != f"{it.python[0]}.{it.python[1]}":
        found = f"{said}, but JetPack {board.jetpack.jetpack if board and board.jetpack else ''}"
        found += f" brings TensorRT and OpenCV for {wanted} only"
        return Check("python", "warn", found, f"install again with: PYTHON=python{wanted} ./install.sh")
    return Check("python", "ok", said)


def check_numpy(it: Installation) -> Check:
    """Can every extension that takes arrays be imported under this NumPy?"""
    version = it.version("numpy")
    if version is None:
        return Check("numpy", "fail", "not installed", f"{it.pip()} install 'numpy>=1.26'")
    if int(version.split(".")[0]) < 2:
        return Check("numpy", "ok", version)
    old = [
        package
        for package, pattern in (("onnxruntime", "*pybind11_state*.so"), ("cv2", "cv2*.so"))
        if any(needs_numpy_1(library) for library in extensions(it, package, pattern))
    ]
    if old:
        found = f"{version}, but {' and '.join(old)}, compiled for NumPy 1, cannot be imported under it"
        return Check("numpy", "fail", found, f"{it.pip('numpy')} install 'numpy>=1.26,<2'")
    return Check("numpy", "ok", version)


def check_opencv(it: Installation) -> Check:
    """Is there one OpenCV, whose is it, and can it open GStreamer pipelines?"""
    places = it.modules("cv2")
    pip = [name for name in _OPENCV if it.version(name)]
    if not places:
        cure = "sudo apt install nvidia-opencv" if on_device(it.root) else f"{it.pip()} install 'overflight[cpu]'"
        return Check("opencv", "warn", "not installed; video and cameras cannot be read", cure)
    gstreamer = _has_gstreamer(it)
    whose = f"{pip[0]} {it.version(pip[0])} from PyPI" if pip else "the system's own"
    said = f"{whose}, {'with' if gstreamer else 'without'} GStreamer"
    tool = it.pip(pip[0] if pip else "")
    remove = f"{tool} uninstall -y {' '.join(pip)}"
    if on_device(it.root) and pip and len(places) > 1:
        found = f"{said}, hides the system's own in {places[1].parent}: CSI cameras and hardware decoding cannot open"
        return Check("opencv", "fail", found, remove)
    if len(pip) > 1:
        return Check(
            "opencv", "warn", f"{' and '.join(pip)} overwrite each other", f"{remove} && {tool} install {pip[0]}"
        )
    if on_device(it.root) and not gstreamer:
        cure = f"{remove} && sudo apt install nvidia-opencv" if pip else "sudo apt install nvidia-opencv"
        return Check("opencv", "warn", f"{said}: CSI cameras and hardware decoding cannot open", cure)
    return Check("opencv", "ok", said)


def check_engine_libraries(it: Installation) -> list[Check]:
    """Which engines can run here, and do they really load?"""
    if not any(it.version(name) for name in _ENGINES):
        found = "neither ONNX Runtime nor OpenVINO nor TensorRT is installed; nothing can fly"
        return [Check("engines", "fail", found, f"{it.pip()} install 'overflight[cpu]'")]
    checks = [check_onnxruntime(it), check_tensorrt(it)]
    if openvino := it.version("openvino"):
        error = probe.load("openvino").error if it.live else None
        cure = f"{it.pip('openvino')} install --force-reinstall openvino"
        checks.append(Check("openvino", "fail", error, cure) if error else Check("openvino", "ok", openvino))
    return checks


def check_onnxruntime(it: Installation) -> Check:
    """Is there one ONNX Runtime, and which of its providers are not just listed but load?"""
    installed = {name: version for name in _RUNTIMES if (version := it.version(name))}
    said = " and ".join(f"{name} {version}" for name, version in installed.items())
    if not installed:
        cure = f"{it.pip()} install 'overflight[cpu]'"
        return Check("onnx runtime", "warn", "not installed: there is no engine to fall back on", cure)
    sites = {it.packages[name].site for name in installed}
    if len(installed) > 1 and len(sites) == 1:
        return Check("onnx runtime", "fail", f"{said} overwrite each other", _one_onnxruntime(it))
    if len(installed) > 1:  # two folders: an import takes the first
        first, second = sorted(installed, key=lambda name: it.sites.index(it.packages[name].site))
        found = f"{first} {installed[first]} hides {second} {installed[second]} in {it.packages[second].site}"
        cure = "use the TensorRT engine: overflight build" if on_device(it.root) else _one_onnxruntime(it)
        return Check("onnx runtime", "warn", found, cure)
    loaded, broken = _providers_live() if it.live else _providers_seen(it)
    if not loaded:
        return Check(
            "onnx runtime",
            "fail",
            f"{said}: {'; '.join(broken)}",
            f"{it.pip(said.split()[0])} install --force-reinstall {said.split()[0]}",
        )
    found = f"{said} on {', '.join(loaded)}"
    if broken:
        return Check(
            "onnx runtime",
            "warn",
            f"{found}; does not load: {'; '.join(broken)}",
            "use the TensorRT engine: overflight build",
        )
    return Check("onnx runtime", "ok", found)


def _one_onnxruntime(it: Installation) -> str:
    """Return what leaves one ONNX Runtime. A board's own packages stay: the index has none for its CUDA."""
    if on_device(it.root):
        return "install our archive again, into its own folder: sudo ./install.sh"
    tool = it.pip("onnxruntime")
    return f"{tool} uninstall -y onnxruntime onnxruntime-gpu && {tool} install 'onnxruntime-gpu[cuda,cudnn]'"


def check_tensorrt(it: Installation) -> Check:
    """Do TensorRT's Python package, its library, CUDA and the driver belong together?"""
    package, device = it.version("tensorrt"), on_device(it.root)
    found = (re.search(r"\.so\.(\d+\.\d+\.\d+)", path.name) for path in it.libraries("libnvinfer.so.*"))
    libraries = sorted({match[1] for match in found if match})
    install = "sudo apt install tensorrt python3-libnvinfer" if device else f"{it.pip()} install 'overflight[tensorrt]'"
    if package is None and not libraries:
        return Check("tensorrt", "warn" if device else "ok", "not installed", install if device else None)
    if package is None:
        return Check("tensorrt", "warn", f"library {libraries[0]} without its Python package", install)
    if libraries and not any(package.startswith(library) for library in libraries):
        said = f"Python package {package}, but the library is {', '.join(libraries)}"
        return Check("tensorrt", "fail", said, f"{it.pip('tensorrt')} uninstall -y tensorrt && {install}")
    said = f"{package}, CUDA {_cuda_version(it) or 'unknown'}"
    board = identify(it.root)
    release = board.jetpack if board else None
    if release and not any(f"{package}.".startswith(f"{version}.") for version in release.tensorrt):
        said += f"; JetPack {release.jetpack} brings {' or '.join(release.tensorrt)}"
        return Check("tensorrt", "warn", said, f"{it.pip('tensorrt')} uninstall -y tensorrt; {install}")
    return _tensorrt_live(said, install, device=device) if it.live else Check("tensorrt", "ok", said)


def _tensorrt_live(said: str, install: str, *, device: bool) -> Check:
    # The driver first: without one TensorRT's lean runtime crashes instead of complaining.
    driver = probe.cuda()
    if driver.error:
        cure = "install the NVIDIA driver (on a Jetson: sudo apt install nvidia-l4t-cuda), then reboot"
        return Check("tensorrt", "fail" if device else "warn", f"{said}, but no GPU answers: {driver.error}", cure)
    if error := probe.load("tensorrt").error:
        return Check("tensorrt", "fail", f"{said}: {error}", install)
    return Check("tensorrt", "ok", f"{said} on {driver.answer['name']}")


def check_bundle(directory: Path) -> Check:
    """Is the bundle whole?"""
    try:
        bundle = Bundle.open(directory)
        bundle.verify()
    except OverflightError as error:
        found, _, cure = str(error).rpartition("; ")
        return Check("bundle", "fail", found, cure.removeprefix("make one with: "))
    signed = f", signed by key {bundle.approval.key}" if bundle.approval is not None else ""
    return Check("bundle", "ok", f"{bundle.manifest.name}, {len(bundle.manifest.files)} files as sealed{signed}")


def check_plan(it: Installation, directory: Path) -> Check:
    """Is there memory for the flight, and for building an engine where TensorRT is there to build one?"""
    try:
        tower = read_tower(directory / "image.onnx")
    except OverflightError:
        return Check("memory plan", "warn", "no image tower to plan for", "see the bundle above")
    usable, swap = usable_here(it.root)
    flight = plan_flight(tower, "onnxruntime-cpu", "fp32", usable)
    found, make_room = flight.said, "sudo systemctl isolate multi-user.target (stops the desktop)"
    if not flight.fits:
        return Check("memory plan", "fail", found, make_room)
    if it.version("tensorrt"):
        graphs = {precision: directory / f"image.{precision}.onnx" for precision in _BUILT}
        builds = [plan_build(tower, precision, usable, swap) for precision in _BUILT if graphs[precision].is_file()]
        builds = builds or [plan_build(tower, "fp16", usable, swap)]
        found = "; ".join([found, *(plan.said + ("" if plan.fits else ": too little") for plan in builds)])
        if not any(plan.fits for plan in builds):
            return Check("memory plan", "warn", found, f"{make_room}, or add swap")
    return Check("memory plan", "ok", found)


class _Verdict(msgspec.Struct, frozen=True):
    passed: bool


class _Record(msgspec.Struct, frozen=True):
    """What a flight must know of an engine.json; read leniently, for another version may have written it."""

    target: str
    precision: str
    versions: dict[str, str]
    variant: str = ""
    bundle: str | None = None
    verdict: _Verdict | None = None


class _Chosen(msgspec.Struct, frozen=True):
    entry: str


def check_engines(it: Installation, directory: Path, home: Path) -> Check:
    """Does the chosen engine belong to the libraries of this device, and was it proven?"""
    try:
        store = home / "engines" / Bundle.open(directory).sha256[:16]
    except OverflightError:
        return Check("engine", "warn", "no bundle, so no engine", "see the bundle above")
    build = f"overflight build {directory}"
    records = {path.parent.name: _decode(path, _Record) for path in sorted(store.glob("*/engine.json"))}
    if not records:
        return Check("engine", "warn", "none built here; flies on ONNX Runtime fp32", build)
    chosen = _decode(store / "default", _Chosen)
    faults = {name: _fault(it, record) for name, record in records.items()}
    name = chosen.entry if chosen and chosen.entry in records else None
    others = [other for other, fault in faults.items() if fault is None and other != name]
    if name is not None and faults[name] is None:
        return Check("engine", "ok", f"{name}, proven; {len(others)} more to fall back on")
    found = f"{name}: {faults[name]}" if name else "none is chosen"
    if others:
        return Check("engine", "warn", f"{found}; flies on {others[0]} instead", build)
    return Check("engine", "fail", f"{found}; would fly on ONNX Runtime fp32, unproven at the speed you planned", build)


def _fault(it: Installation, record: _Record | None) -> str | None:
    if record is None:
        return "its record cannot be read"
    for library, built in record.versions.items():
        here = it.version(library) or (it.version("onnxruntime-gpu") if library == "onnxruntime" else None)
        if here is None:
            return f"built with {library} {built}, which is not installed"
        if not (here.startswith(built) or built.startswith(here)):
            return f"built with {library} {built}, here is {here}"
    if record.verdict is None or not record.verdict.passed:
        return "was not proven faithful"
    return None


def _decode(path: Path, kind: type[_Kind]) -> _Kind | None:
    try:
        return decode_json(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):
        return None


def _has_gstreamer(it: Installation) -> bool:
    # A wheel carries its build information in the module itself, Debian's in the core library.
    candidates = [*extensions(it, "cv2", "cv2*.so"), *it.libraries("libopencv_core.so*")]
    found = (search(path, rb"GStreamer:\s+(YES|NO)") for path in candidates)
    first = next((match for match in found if match), None)
    return first is not None and first[1] == b"YES"


def _cuda_version(it: Installation) -> str | None:
    names: Iterable[str] = (path.name for path in it.libraries("libcudart.so.*"))
    found = (re.search(r"\.so\.(\d+(?:\.\d+)?)", name) for name in names)
    return max((match[1] for match in found if match), default=None)


def _providers_live() -> tuple[list[str], list[str]]:
    loaded = probe.providers()
    if loaded.error:
        return [], [loaded.error]
    # Azure's provider calls a web service; it is no engine.
    local = {name.removesuffix("ExecutionProvider"): got for name, got in loaded.answer.items() if "Azure" not in name}
    return [name for name, got in local.items() if got], [name for name, got in local.items() if not got]


def _providers_seen(it: Installation) -> tuple[list[str], list[str]]:
    """Judge the providers by their files: each must find the TensorRT that it was linked to."""
    seen, broken = ["CPU"], []
    for path in extensions(it, "onnxruntime", "libonnxruntime_providers_*.so"):
        if not (kind := _PROVIDER.match(path.name)):
            continue
        needed = search(path, rb"libnvinfer\.so\.\d+")
        if needed and not it.libraries(needed[0].decode() + "*"):
            broken.append(f"{kind[1]} (needs {needed[0].decode()})")
        else:
            seen.append(kind[1].upper() if kind[1] == "cuda" else "TensorRT")
    return seen, broken
