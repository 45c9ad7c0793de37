"""The layout of the repository: folders, links, module docstrings, mirrored tests, and the table of commands."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest
from hypothesis import settings

from overflight.cli import COMMANDS

ROOT = Path(__file__).parents[1]
ROOMS = ("jetson", "runtime", "export", "calibration", "bench", "station", "models")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_its_folder(room: str) -> None:
    """``overflight.runtime`` is the folder ``runtime/``."""
    module = importlib.import_module(f"overflight.{room}")
    assert Path(str(module.__file__)).resolve().parent == ROOT / room


@pytest.mark.parametrize("name", ["overflight", "overflight.runtime"])
def test_what_is_exported_is_sorted_real_and_documented(name: str) -> None:
    """``__all__`` names what exists, in order, and the site's reference describes every class of it."""
    module = importlib.import_module(name)
    assert module.__all__ == sorted(module.__all__)
    reference = (ROOT / "docs" / "reference" / "index.md").read_text()
    for export in module.__all__:
        assert not isinstance(getattr(module, export), type) or f"::: {name}.{export}\n" in reference


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_one_sentence_and_stays_readable(path: Path) -> None:
    """Every module says what it is, and none outgrows 400 lines or has a function of more than 60."""
    text = path.read_text()
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree)
    assert docstring, "a module opens with one sentence"
    assert docstring.splitlines()[0].endswith((".", ":", "?")), docstring.splitlines()[0]
    assert text.count("\n") <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long to read"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_is_its_own(name: str) -> None:
    """The table that keeps ``overflight --help`` fast says what each command's own help says."""
    room, line = COMMANDS[name]
    command = importlib.import_module(f"overflight.{room}.commands.{name.replace('-', '_')}").command
    assert isinstance(command, click.Command)
    assert (command.help or "").splitlines()[0] == line


def test_every_command_is_in_the_table() -> None:
    """A command file without a line in the table could never be called."""
    files = [path for room in ROOMS for path in (ROOT / room / "commands").glob("*.py")]
    defined = {
        path.stem.replace("_", "-") for path in files if re.search(r"^def command\(", path.read_text(), re.MULTILINE)
    }
    assert defined == set(COMMANDS)


@cache
def covered() -> frozenset[str]:
    """Return the modules that test files name after "Covers:" in their opening docstring."""
    named = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        opening = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\nCovers: ")[2]
        named |= set(re.findall(r"[\w/]+\.py", opening.partition("\n\n")[0]))
    return frozenset(named)


@pytest.mark.parametrize("room", ["runtime", "export", "calibration", "station"])
def test_every_module_has_a_test_that_a_stranger_finds(room: str) -> None:
    """tests/FOLDER/test_MODULE.py, or a test file that names the module after "Covers:" in its opening docstring."""
    modules = [path.relative_to(ROOT) for path in (ROOT / room).rglob("*.py") if path.stem != "__init__"]
    mirrors = {path for path in modules if (ROOT / "tests" / path.parent / f"test_{path.stem}.py").is_file()}
    missing = sorted(str(path) for path in modules if path not in mirrors and str(path) not in covered())
    assert not missing, 'add tests/<folder>/test_<module>.py, or name the module after "Covers:" in a test\'s docstring'


def test_what_tests_say_they_cover_exists() -> None:
    """A module that was renamed or removed is named no longer."""
    assert sorted(name for name in covered() if not (ROOT / name).is_file()) == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, timeout=60
    )


def test_the_runtime_imports_nothing_heavy() -> None:
    """What flies loads no exporter, no trainer, no tokenizer and no terminal library."""
    done = run("-X", "importtime", "-c", "import overflight.runtime")
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "numpy" in loaded
    assert not loaded & {
        "onnx",
        "onnx_ir",
        "torch",
        "transformers",
        "tokenizers",
        "sentencepiece",
        "rich",
        "cv2",
        "PIL",
    }


def test_help_loads_no_room() -> None:
    """``overflight --help`` is quick because it imports neither numpy nor any of the folders."""
    done = run("-X", "importtime", "-m", "overflight", "--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "overflight.cli" in loaded
    assert not {name for name in loaded if name == "numpy" or name.startswith(tuple(f"overflight.{r}" for r in ROOMS))}


def test_an_unknown_command_is_a_usage_error() -> None:
    """Exit code 2, and no traceback."""
    done = run("-m", "overflight", "fry")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_property_has_a_deadline() -> None:
    """A busy machine must not fail a property test: tests/conftest.py turns Hypothesis's deadlines off."""
    assert settings().deadline is None
