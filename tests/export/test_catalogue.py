"""Published models are fetched by name: from a hub, a mirror or a copy; licence accepted, hashes checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overflight.export.catalogue import read_catalogue
from overflight.export.layouts.open_clip_settings import read_architectures
from overflight.export.prompts import template_names

Tiny = Callable[..., Path]


def fetch(*arguments: str, endpoint: str = "", home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would, without torch."""
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "COLUMNS": "200"}
    if home is not None:
        environment |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint or "http://127.0.0.1:9"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; from overflight.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "fetch", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_every_model_of_the_table_can_be_read() -> None:
    """Architectures and templates are known ones, and a bare file says how it is to be read."""
    for name, model in read_catalogue().items():
        assert model.templates in template_names(), name
        assert (model.file is None) == (model.like is None), name
        assert model.like is None or model.like in read_architectures(), name
        assert model.licence
        assert model.see.startswith("https://"), name


def test_without_a_name_the_models_are_listed() -> None:
    """Every name with its licence, as a table and as JSON."""
    shown, listed = fetch(), fetch("--json")
    assert shown.returncode == listed.returncode == 0
    assert json.loads(listed.stdout).keys() == read_catalogue().keys()
    assert all(name in shown.stdout for name in read_catalogue())


@pytest.fixture
def copy(tiny: Tiny) -> Path:
    """A directory with a copy of a model, as a field station would carry it."""
    directory = tiny("siglip")
    (directory.parent / "lcybuaa").mkdir()
    directory.rename(directory.parent / "lcybuaa" / "Git-RSCLIP")
    return directory.parent


def test_a_copy_becomes_a_bundle_with_its_origin(copy: Path, tmp_path: Path) -> None:
    """No network: the copy is exported, and the manifest names repository, licence, hashes and templates."""
    done = fetch("git-rsclip", str(tmp_path / "b"), "--from", str(copy), "--accept-licence", "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "licence: Apache-2.0" in done.stderr
    manifest: dict[str, Any] = json.loads(done.stdout)
    assert manifest["name"] == "git-rsclip"
    assert manifest["templates"] == "git-rsclip"
    assert manifest["origin"]["repository"] == "lcybuaa/Git-RSCLIP"
    assert len(manifest["origin"]["files"]["model.safetensors"]) == 64


def test_the_licence_must_be_accepted(copy: Path, tmp_path: Path) -> None:
    """Without a terminal to ask on, the option is named; nothing is downloaded or written."""
    done = fetch("git-rsclip", str(tmp_path / "b"), "--from", str(copy), home=tmp_path)
    assert done.returncode == 2
    assert "its licence was not accepted" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "b").exists()


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    """An unknown name, a place without a copy, a place that is none, no network."""
    (tmp_path / "empty").mkdir()
    wrong = {
        ("sky-model",): (2, "no such model in the table; known are git-rsclip"),
        ("git-rsclip", "--accept-licence", "--from", str(tmp_path / "empty")): (3, "no copy of lcybuaa/Git-RSCLIP"),
        ("georsclip-h14", "--accept-licence", "--from", str(tmp_path / "empty")): (3, "with ckpt/RS5M_ViT-H-14.pt"),
        ("git-rsclip", "--accept-licence", "--from", str(tmp_path / "absent")): (2, "no such directory; give a mirror"),
        ("git-rsclip", "--accept-licence"): (3, "the hub did not deliver it"),
    }
    for arguments, (code, said) in wrong.items():
        done = fetch(*arguments, home=tmp_path / "home")
        assert done.returncode == code, done.stderr
        assert said in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr
