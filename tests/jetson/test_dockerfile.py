"""The Dockerfile, read: it has not been built, because no registry of its base image can be reached from the tests.

What the NVIDIA container toolkit does with it was read in its source of August 2026: see jetson/README.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCKERFILE = Path(__file__).parents[2] / "jetson" / "Dockerfile"
# Of the board's driver files that CSV mode mounts (the toolkit's own copy of an Orin's drivers.csv), what we rely on.
MOUNTED = ("libcuda.so.1.1", "libgstnvvidconv.so", "libgstnvvideo4linux2.so", "libgstnvarguscamerasrc.so")


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, rest), continuation lines joined, comments dropped."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def test_the_image_asks_the_runtime_for_the_gpu() -> None:
    """CSV mode changes nothing without NVIDIA_VISIBLE_DEVICES, and knows only "all" and "0"."""
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for name, rest in instructions() if name == "ENV")))
    assert environment["NVIDIA_VISIBLE_DEVICES"] in ("all", "0")
    assert {"compute", "video"} <= set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(","))


def test_the_base_brings_what_csv_mode_does_not() -> None:
    """CUDA and TensorRT are not among the driver's files, so a bare Ubuntu would have neither."""
    (base,) = (rest.removeprefix("BASE=") for name, rest in instructions() if name == "ARG")
    assert "l4t-jetpack" in base
    assert ":" in base, "a base without a tag changes under us"
    assert not any("cudart" in name or "nvinfer" in name for name in MOUNTED)
    assert instructions()[1] == ("FROM", "${BASE}")


def test_the_user_may_open_the_devices_and_nothing_else() -> None:
    """Groups video and render, not root, and root's work is done before."""
    runs = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert re.search(r"useradd --system --groups video,render .*overflight", runs)
    assert "groupadd --force --system render" in runs
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name == "RUN")
    assert ("USER", "overflight") in instructions()
    assert '--group-add "$(getent group render' in DOCKERFILE.read_text()


@pytest.mark.parametrize("wrong", ["sudo ", "apt-get upgrade", "ADD http", "chmod 777", ":latest", "pip install"])
def test_what_linters_of_dockerfiles_refuse(wrong: str) -> None:
    """hadolint's usual findings, as plain text."""
    assert wrong not in "\n".join(" ".join(one) for one in instructions())


def test_package_lists_are_removed_where_they_are_fetched() -> None:
    """In the same layer; recommended packages are not installed."""
    for name, rest in instructions():
        if name == "RUN" and "apt-get update" in rest:
            assert "--no-install-recommends" in rest
            assert rest.rstrip().endswith("rm -rf /var/lib/apt/lists/*")


def test_the_entry_point_is_a_list() -> None:
    """A shell between Docker and the flight would swallow SIGTERM."""
    entry = dict(instructions())
    assert entry["ENTRYPOINT"].startswith("[")
    assert entry["CMD"].startswith("[")
