"""The doctor on this machine, on recreated boards, and on boards broken in the ways that boards are broken.

Covers: runtime/commands/doctor.py, runtime/doctor/installation.py, runtime/doctor/probe.py, runtime/engines/gpu.py.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner

from overflight.runtime.bundle import SCHEMA, Bundle, Manifest, Resize, Tokenising, seal
from overflight.runtime.commands.doctor import command
from overflight.runtime.doctor import checks, probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from overflight.jetson.checks import Check

    Grow = Callable[[str], Path]

NANO, AGX = "orin-nano-jetpack-6.2", "agx-orin-jetpack-7.2"
SITE = "opt/overflight/venv/lib/python3.10/site-packages"


SHAPES = {
    "image.patches.weight": (768, 768),
    "image.positions.bias": (256, 768),
    "image.block0.attention.qkv.weight": (768, 2304),
    "image.block0.mlp.up.weight": (768, 3072),
    "image.block0.mlp.down.weight": (3072, 768),
}


def field(number: int, content: bytes) -> bytes:
    """Write one length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Write a protobuf number."""
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


def tensor(name: str, dims: tuple[int, ...]) -> bytes:
    """Write an initializer of a graph: shape, type and name, its numbers kept elsewhere."""
    content = b"".join(varint(1 << 3) + varint(dim) for dim in dims) + varint(2 << 3) + varint(1)
    return field(5, content + field(8, name.encode()))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Seal a bundle of one file; the doctor looks at hashes, not at towers."""
    place = tmp_path / "bundle"
    place.mkdir()
    tensors = b"".join(tensor(name, dims) for name, dims in SHAPES.items())
    (place / "image.onnx").write_bytes(field(7, tensors))
    resize, tokens = Resize(256, "bicubic", "squash"), Tokenising("siglip", 64, 32000)
    return seal(
        place,
        Manifest(SCHEMA, "toy", "siglip", "sigmoid", 8, 0.0, 0.0, resize, tokens, "0" * 64, 20, "test", (), {}),
    )  # fmt: skip


def build_engine(bundle: Bundle, root: Path, entry: str, versions: dict[str, str], *, default: bool = True) -> None:
    """Put an engine that was built and proven into the store of a tree."""
    store = root / "var/lib/overflight/engines" / bundle.sha256[:16]
    (store / entry).mkdir(parents=True)
    target, precision, _ = entry.rsplit("-", 2)
    record = {"target": target, "precision": precision, "versions": versions, "verdict": {"passed": True}}
    (store / entry / "engine.json").write_bytes(msgspec.json.encode(record))
    if default:
        (store / "default").write_bytes(msgspec.json.encode({"schema": 1, "entry": entry}))


def examine(bundle: Bundle, root: Path) -> dict[str, Check]:
    """Examine a tree and return the findings by name, without the disk, which is this machine's own."""
    health = checks.examine(bundle.directory, root, root=root, home=root / "var/lib/overflight", user="pilot")
    return {check.name: check for check in health.checks if check.name != "disk"}


@pytest.mark.parametrize(("name", "tensorrt"), [(NANO, "10.3.0"), (AGX, "10.16.1.11")])
def test_healthy_boards_are_fit(tree: Grow, bundle: Bundle, name: str, tensorrt: str) -> None:
    """JetPack 6.2 and 7.2 as installed by our own installer: nothing to mend."""
    root = tree(name)
    build_engine(bundle, root, "tensorrt-fp16-abc", {"tensorrt": tensorrt})
    found = examine(bundle, root)
    assert [check for check in found.values() if check.verdict != "ok"] == []
    assert found["opencv"].found == "the system's own, with GStreamer"


def test_providers_are_named_by_what_loads(tree: Grow, bundle: Bundle) -> None:
    """A provider counts when the TensorRT that it was linked to is there."""
    root = tree(NANO)
    assert examine(bundle, root)["onnx runtime"].found == "onnxruntime-gpu 1.23.0 on CPU, CUDA, TensorRT"
    (root / "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0").rename(root / "usr/lib/libnvinfer.so.11")
    check = examine(bundle, root)["onnx runtime"]
    assert check.verdict == "warn"
    assert "tensorrt (needs libnvinfer.so.10)" in check.found


def test_numpy_2_under_jetpack_6_onnx_runtime(tree: Grow, bundle: Bundle) -> None:
    """The board's ONNX Runtime and OpenCV are compiled for NumPy 1; NumPy 2 breaks their import."""
    root = tree(NANO)
    (root / SITE / "numpy-1.26.4.dist-info").rename(root / SITE / "numpy-2.2.6.dist-info")
    text = (root / SITE / "numpy-2.2.6.dist-info/METADATA").read_text()
    (root / SITE / "numpy-2.2.6.dist-info/METADATA").write_text(text.replace("1.26.4", "2.2.6"))
    check = examine(bundle, root)["numpy"]
    assert check.verdict == "fail"
    assert check.found == "2.2.6, but onnxruntime and cv2, compiled for NumPy 1, cannot be imported under it"
    assert check.cure == "/opt/overflight/venv/bin/python -m pip install 'numpy>=1.26,<2'"


def test_pip_opencv_that_shadows_the_systems(tree: Grow, bundle: Bundle) -> None:
    """PyPI's OpenCV comes first on the path and has no GStreamer: no CSI camera."""
    root = tree(NANO)
    site = root / "home/pilot/.local/lib/python3.10/site-packages"
    (site / "cv2").mkdir(parents=True)
    (site / "cv2/cv2.abi3.so").write_text("numpy._core._multiarray_umath\nGStreamer:                   NO\n")
    (site / "opencv_python-4.12.0.88.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.12.0.88\n"
    (site / "opencv_python-4.12.0.88.dist-info/METADATA").write_text(metadata)
    check = examine(bundle, root)["opencv"]
    assert check.verdict == "fail"
    assert "opencv-python 4.12.0.88 from PyPI, without GStreamer, hides the system's own" in check.found
    assert check.cure == "python3.10 -m pip uninstall -y opencv-python"


def test_ubuntus_opencv_is_one_file_without_metadata(tree: Grow, bundle: Bundle) -> None:
    """Found in the built image: python3-opencv of Ubuntu 22.04 was reported as not installed, with pip as the cure."""
    root = tree(NANO)
    shutil.rmtree(root / "usr/lib/python3.10/dist-packages/cv2", ignore_errors=True)
    site = root / "usr/lib/python3/dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(site / "cv2", ignore_errors=True)
    (site / "cv2.cpython-310-aarch64-linux-gnu.so").write_text(
        "numpy.core.multiarray\nGStreamer:                   YES\n"
    )
    check = examine(bundle, root)["opencv"]
    assert (check.verdict, check.found) == ("ok", "the system's own, with GStreamer")


def test_an_engine_built_by_another_tensorrt(tree: Grow, bundle: Bundle) -> None:
    """After an upgrade of JetPack the chosen engine is foreign, and nothing proven is left to fly on."""
    root = tree(AGX)
    build_engine(bundle, root, "tensorrt-fp16-abc", {"tensorrt": "10.3.0"})
    check = examine(bundle, root)["engine"]
    assert check.verdict == "fail"
    assert "built with tensorrt 10.3.0, here is 10.16.1.11" in check.found
    assert check.cure == f"overflight build {bundle.directory}"
    build_engine(bundle, root, "onnxruntime-cpu-int8-def", {"onnxruntime": "1.31.1"}, default=False)
    check = examine(bundle, root)["engine"]
    assert check.verdict == "warn"
    assert "flies on onnxruntime-cpu-int8-def instead" in check.found


def test_tensorrt_from_pypi_next_to_jetpacks_own(tree: Grow, bundle: Bundle) -> None:
    """A Python package of another version than the library cannot load."""
    root = tree(NANO)
    info = root / SITE / "tensorrt-11.4.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt\nVersion: 11.4.0\n")
    check = examine(bundle, root)["tensorrt"]
    assert check.verdict == "fail"
    assert check.cure is not None
    assert check.cure.startswith("/opt/overflight/venv/bin/python -m pip uninstall -y tensorrt && sudo apt install")


def test_another_python_than_the_releases(tree: Grow, bundle: Bundle) -> None:
    """A newer Python on JetPack 6 has neither TensorRT nor OpenCV."""
    root = tree(NANO)
    (root / "usr/bin/python3.10").rename(root / "usr/bin/python3.12")
    assert examine(bundle, root)["python"].verdict == "warn"


def test_nothing_to_fly_with(bundle: Bundle, tmp_path: Path) -> None:
    """No engine library at all is a refusal."""
    found = examine(bundle, tmp_path / "bare")
    assert found["engines"].verdict == "fail"
    assert found["numpy"].verdict == "fail"


def test_a_damaged_bundle(tree: Grow, bundle: Bundle) -> None:
    """A changed file is found before the flight."""
    (bundle.directory / "image.onnx").write_bytes(b"towel")
    check = examine(bundle, tree(NANO))["bundle"]
    assert check.verdict == "fail"
    assert "SHA-256" in check.found


def test_too_little_memory_is_told_in_numbers(tree: Grow, bundle: Bundle) -> None:
    """The plan names what a flight and a build would take; a board without room is refused."""
    root = tree(NANO)
    found = examine(bundle, root)["memory plan"]
    assert found.verdict == "ok"
    assert "a flight on onnxruntime-cpu fp32 takes 0." in found.found
    assert "building a TensorRT fp16 engine takes" in found.found
    (root / "proc/meminfo").write_text("MemTotal: 7802876 kB\nMemAvailable: 300120 kB\nSwapTotal: 0 kB\n")
    found = examine(bundle, root)["memory plan"]
    assert (found.verdict, "0.29 GiB can be used" in found.found) == ("fail", True)


def test_two_onnx_runtimes(tree: Grow, bundle: Bundle) -> None:
    """onnxruntime and onnxruntime-gpu overwrite each other's files."""
    root = tree(NANO)
    info = root / SITE / "onnxruntime-1.23.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 1.23.2\n")
    check = examine(bundle, root)["onnx runtime"]
    assert (check.verdict, check.cure) == ("fail", "install our archive again, into its own folder: sudo ./install.sh")


def test_an_onnx_runtime_that_hides_another(tree: Grow, bundle: Bundle) -> None:
    """Ours in its folder, the board's own elsewhere: nothing is overwritten, and nothing is to be uninstalled."""
    root = tree(NANO)
    info = root / "usr/local/lib/python3.10/dist-packages/onnxruntime_gpu-1.23.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.23.0\n")
    own = root / SITE / "onnxruntime-1.23.2.dist-info"
    for old in (root / SITE).glob("onnxruntime*.dist-info"):
        shutil.rmtree(old)
    own.mkdir()
    (own / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime\nVersion: 1.23.2\n")
    check = examine(bundle, root)["onnx runtime"]
    assert check.verdict == "warn"
    assert check.found.startswith("onnxruntime 1.23.2 hides onnxruntime-gpu 1.23.0 in ")
    assert check.cure == "use the TensorRT engine: overflight build"


def test_this_machine_really_loads_what_it_lists(bundle: Bundle, tmp_path: Path) -> None:
    """Here every library is loaded in a child; ONNX Runtime's processor provider must be among those that answer."""
    pytest.importorskip("onnxruntime")
    health = checks.examine(bundle.directory, tmp_path, home=tmp_path)
    found = {check.name: check for check in health.checks}
    assert " on CPU" in found["onnx runtime"].found or ", CPU" in found["onnx runtime"].found
    assert found["numpy"].verdict == "ok"
    assert found["bundle"].verdict == "ok"
    assert found["engine"].verdict == "warn"


def test_a_library_that_crashes_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that dies of a signal or says nonsense is a finding."""
    assert probe.load("no_such_library").error == "ModuleNotFoundError: No module named 'no_such_library'"
    monkeypatch.setattr(probe, "_IMPORT", "import os; os.kill(os.getpid(), 11)")
    assert probe.load("x").error == "ended by signal 11"
    monkeypatch.setattr(probe, "_IMPORT", "print('hello')")
    assert probe.load("x").error == "said 'hello'"


def test_the_command_ends_with_3_when_a_flight_would_fail(tree: Grow, bundle: Bundle) -> None:
    """JSON for machines, a line and its cure for people, exit code 3 for scripts."""
    root = tree(NANO)
    build_engine(bundle, root, "tensorrt-fp16-abc", {"tensorrt": "10.3.0"})
    asked = [str(bundle.directory), "--root", str(root), "--user", "pilot", "--out", str(root)]
    result = CliRunner().invoke(command, [*asked, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["fit"] is True
    result = CliRunner().invoke(command, [*asked[:-3], "guest", *asked[-2:]])
    assert result.exit_code == 3
    assert "sudo usermod -aG video" in result.output
    assert "not fit for a flight" in result.output
