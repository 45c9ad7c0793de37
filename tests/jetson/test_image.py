"""The image, built from the Dockerfile on a base made here, and looked into: minutes, a network and root.

    mmdebstrap --variant=minbase --include=apt --components=main,universe jammy base.tar http://archive.ubuntu.com/ubuntu
    make jetson-bundle
    OVERFLIGHT_IMAGE_BASE=base.tar pytest -m campaign tests/jetson/test_image.py

Ubuntu 22.04 is what JetPack 6 is made of; CUDA and TensorRT are what this base lacks. Where buildah, the base or
the archive is missing, the tests are skipped.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.campaign


class Image:
    """A built image, in a store of its own that is removed with it; commands run in a change of root."""

    def __init__(self, store: Path) -> None:
        self._buildah = ["buildah", "--root", f"{store}/root", "--runroot", f"{store}/run"]

    def buildah(self, *arguments: str) -> str:
        done = subprocess.run([*self._buildah, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    def run(self, *command: str) -> str:
        return self.buildah("run", "--isolation", "chroot", "inside", "--", *command)

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", "overflight"))["OCIv1"]["config"]
        return config


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    base = os.environ.get("OVERFLIGHT_IMAGE_BASE")
    archives = sorted(ROOT.glob(f"dist/overflight-*-{platform.machine()}.tar.gz"))
    if not shutil.which("buildah") or not base or not archives or os.geteuid() != 0:
        pytest.skip("needs root, buildah, OVERFLIGHT_IMAGE_BASE and make jetson-bundle; see this file's head")
    place = tmp_path_factory.mktemp("image")
    with tarfile.open(archives[-1]) as archive:
        archive.extractall(place / "archive", filter="data")
    (content,) = (place / "archive").iterdir()
    image = Image(place / "store")
    empty = image.buildah("from", "scratch")
    image.buildah("add", "--quiet", empty, base, "/")
    image.buildah("commit", "--quiet", empty, "base")
    image.buildah(
        "bud", "--isolation", "chroot", "--network", "host", "--build-arg", "BASE=localhost/base",
        "--build-context", f"archive={content}", "--file", str(ROOT / "jetson/Dockerfile"), "--tag", "overflight",
        str(ROOT / "jetson"),
    )  # fmt: skip
    image.buildah("from", "--name", "inside", "overflight")
    yield image
    image.buildah("rm", "--all")
    image.buildah("rmi", "--all", "--force")


def test_its_settings(image: Image) -> None:
    """What NVIDIA's runtime reads, and who runs what."""
    config = image.config
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"} <= set(config["Env"])
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == (
        "overflight",
        ["/usr/local/bin/overflight"],
        ["doctor"],
    )
    assert list(config["Volumes"]) == [config["WorkingDir"]] == ["/var/lib/overflight"]


def test_its_user_has_the_groups_and_may_write_its_folder_only(image: Image) -> None:
    """Not root; /opt is not its own."""
    assert image.run("id", "-un") == "overflight"
    assert {"video", "render"} <= set(image.run("id", "-Gn").split())
    image.run("touch", "/var/lib/overflight/written")
    assert image.run("sh", "-c", "test -w /opt/overflight/venv/bin/python && echo yes || echo no") == "no"


def test_nothing_is_left_of_the_build(image: Image) -> None:
    """No package lists, no downloads, no file that marks a board."""
    left = image.run(
        "sh", "-c", "ls /var/lib/apt/lists /var/cache/apt/archives/*.deb /etc/nv_tegra_release 2>/dev/null; :"
    )
    assert left.split() in ([], ["/var/lib/apt/lists:"])


def test_it_starts_checks_itself_and_flies(image: Image) -> None:
    """As its user; doctor finds the groups, and no CUDA in this base."""
    assert image.run("/usr/local/bin/overflight", "--version")
    checks = {check["name"]: check for check in json.loads(image.run("overflight", "doctor", "--json"))["checks"]}
    assert checks["groups"]["verdict"] == "ok"
    assert checks["bundle"]["verdict"] == "ok"
    assert checks["tensorrt"]["found"] == "not installed"
    image.run("overflight", "run", "test://?frames=20", "--out", "/var/lib/overflight/flight")
    record = json.loads(image.run("cat", "/var/lib/overflight/flight/flight.json"))
    assert record["ended_because"] == "source ended"


def test_the_systems_opencv_is_there_for_pythons_without_a_wheel(image: Image) -> None:
    """Ubuntu 22.04's is 4.5, with GStreamer: the one that a board's archive flies with."""
    said = image.run("/usr/bin/python3", "-c", "import cv2; print(cv2.__version__, cv2.getBuildInformation())")
    assert "GStreamer:                   YES" in said
