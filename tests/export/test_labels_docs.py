"""Everything that docs/labels.md shows runs, and what it says of the templates is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from overflight.cli import overflight
from overflight.export.labels import NEAR_DUPLICATE, compile_bank
from overflight.export.prompts import DEFAULT, read_templates, template_names

if TYPE_CHECKING:
    from overflight.runtime.bundle import Bundle

DOCS = Path(__file__).parents[2] / "docs" / "labels.md"


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(text_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a directory with the files of the page, and the tiny bundle for the default model's."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bundle").symlink_to(text_bundle.directory)
    (tmp_path / "scenes.txt").write_text(*blocks("text"))
    (tmp_path / "watch.toml").write_text(*blocks("toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("overflight.runtime.bundle.default_bundle", lambda: text_bundle.directory)
    return tmp_path


def test_the_commands_run(desk: Path) -> None:
    """Each line of each sh block, and each command in the running text, ends with exit code 0."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    lines += re.findall(r"`overflight (labels [^`A-Z]*)`", DOCS.read_text())
    assert len(lines) == 2
    for line in lines:
        result = CliRunner().invoke(overflight, line.removeprefix("overflight ").split())
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert (desk / "scenes.safetensors").is_file()


def test_the_python_runs(desk: Path) -> None:
    """The snippet is executed as it stands."""
    for block in blocks("python"):
        exec(compile(block, str(DOCS), "exec"), {})
    assert (desk / "watch.safetensors").is_file()


def test_the_toml_means_what_its_comments_say(desk: Path, text_bundle: Bundle) -> None:
    """Groups, thresholds, templates and background arrive in the bank."""
    header = compile_bank(desk / "watch.toml", text_bundle).header
    labels = {label.text: label for label in header.labels}
    assert (header.name, header.exclusive) == ("harbour watch", ("ground",))
    assert labels["oil spill"].threshold == 0.1
    assert labels["ship"].threshold == labels["forest"].threshold == 0.3
    assert labels["clouds"].background
    assert labels["farmland"].templates == "georsclip"
    assert labels["farmland"].group == "ground"


def test_the_table_of_templates_is_complete() -> None:
    """Every shipped set stands in the table with the number of its forms."""
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)`[^|]*\| (\d+) \|", DOCS.read_text(), re.MULTILINE))
    assert rows == {name: str(len(read_templates(name).forms)) for name in template_names()}
    assert f"`{DEFAULT}` (default)" in DOCS.read_text()
    assert f"cosine of {NEAR_DUPLICATE}" in DOCS.read_text()
