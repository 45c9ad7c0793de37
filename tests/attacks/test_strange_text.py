"""Hostile TOML and JSON from outside: each reader answers, or refuses in its own words, within bounded time and memory.

Covers: runtime/toml_input.py, runtime/json_input.py
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from overflight.bench.row import read as read_rows
from overflight.calibration.recipe import RECIPE, load_recipe
from overflight.export.label_file import MOST_MISTAKES, parse_toml
from overflight.export.prompts import DEFAULT, read_templates
from overflight.export.tensors import read_safetensors
from overflight.export.tokenise import read_tokenizer_config
from overflight.runtime.errors import OverflightError, UsageError
from overflight.runtime.evaluation.thresholds import read_examples
from overflight.runtime.event import Event
from overflight.runtime.geofiles.export import read_flight
from overflight.runtime.toml_input import MOST_PARTS, decode_toml
from overflight.station.coverage import read_area
from overflight.station.deploy.deployments import Deployments
from overflight.station.evaluate.boxes import read_coco
from overflight.station.evaluate.datasets import open_dataset
from overflight.station.serve.aircraft import _read

DEEP = b'{"x":' + b"[" * 100_000
_DECODE = """
import sys
from pathlib import Path
from overflight.export.label_file import read_label_file
from overflight.export.prompts import DEFAULT, read_templates
from overflight.runtime.errors import UsageError
try:
    print("entries", len(read_label_file(Path(sys.argv[1]), read_templates(DEFAULT)).entries))
except UsageError as error:
    print("refused", error)
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (".".join("a" * 200_000) + " = 1", "a key of more than 16 parts"),
        ("[" + " . ".join("a" * 200_000) + "]", "a key of more than 16 parts"),
        ("x = {" + '."b".'.join("a" * 100_000) + " = 1}", "a key of more than 16 parts"),
        ("'a'." * 200_000 + "a = 1", "a key of more than 16 parts"),
        ("threshold = " + "1" * 5_000, "5,000 characters in one word"),
        ("threshold = 0x" + "f" * 100_000, "100,002 characters in one word"),
        ("labels = [" + "[" * 100_000, "nested too deeply"),
        ("".join(f"[[labels]]\ntext = 'a{i}'\n" for i in range(12_000)), "12,000 labels"),
        ("".join(f"[groups.g{i}]\nlabels = ['a{i}']\n#{'-' * 200}\n" for i in range(9_000)), "entries 9000"),
        ("labels = [" + ",".join(f'"\\u0041{i}"' for i in range(10_000)) + "]", "entries 10000"),
    ],
    ids=["dotted", "header", "inline", "quoted", "decimal", "hex", "deep", "labels", "groups", "escapes"],
)
def test_a_label_file_costs_seconds_at_most(
    source: str, said: str, limited: Callable[..., Any], tmp_path: Path
) -> None:
    """tomllib needs the square of a key's parts, ten minutes for 200,000; and finding lines needed that of groups."""
    (tmp_path / "labels.toml").write_text(source)
    ended = limited(_DECODE, str(tmp_path / "labels.toml"))
    assert ended.code == 0, ended.said
    assert said in ended.said
    assert ended.peak_mb < 250


def test_texts_with_many_dots_are_no_keys() -> None:
    """Only keys are counted: not texts, comments or long texts, also where they contain quotes."""
    dots = ".".join("a" * 50)
    text = (
        f'a.b = "{dots}" # {dots}\nc = \'{dots}\'\nd = """\n"{dots}" \\""""\ne = \'\'\'\'{dots}\'\'\'\nf = ["{dots}"]\n'
    )
    assert set(decode_toml(text)) == {"a", "c", "d", "e", "f"}
    most = ".".join("a" * MOST_PARTS)
    assert decode_toml(f"[{most}]\n{most} = 1.5\n")


def test_mistakes_are_told_in_bounded_length() -> None:
    """A hundred in full, in the order of their lines, then how many more; no value is repeated in full."""
    source = f"labels = [[{'1,' * 100_000}]]\n" + "".join(f"k{number} = 1\n" for number in range(50_000))
    with pytest.raises(UsageError) as caught:
        parse_toml(source, read_templates(DEFAULT), "x.toml", "x")
    lines = str(caught.value).splitlines()
    assert len(lines) == MOST_MISTAKES + 1
    assert len(str(caught.value)) < 60_000
    assert "unknown key 'k0'" in lines[1] or "unknown key 'k0'" in lines[0]
    assert lines[-1] == "x.toml: 49,901 further mistakes; correct these first"


def _in(name: str, read: Callable[[Path], object], *, of_folder: bool = False) -> Callable[[Path], object]:
    def reader(folder: Path) -> object:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(DEEP)
        return read(folder if of_folder else folder / name)

    return reader


def _weights(path: Path) -> object:
    header = b'{"a":' + b"[" * 100_000
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return read_safetensors(path)


def _recipe(folder: Path) -> object:
    (folder / RECIPE).parent.mkdir(parents=True, exist_ok=True)
    return load_recipe(folder)


READERS: dict[str, Callable[[Path], object]] = {
    "area": _in("area.geojson", read_area),
    "COCO boxes": _in("boxes.json", lambda path: read_coco(path, path.parent)),
    "captions": _in("captions.json", lambda path: open_dataset(path, None)),
    "caption lines": _in("captions.jsonl", lambda folder: open_dataset(folder, None), of_folder=True),
    "weights": _in("a.safetensors", _weights),
    "tokenizer": _in("tokenizer_config.json", read_tokenizer_config),
    "recipe": _in(RECIPE, _recipe, of_folder=True),
    "records": _in("a.jsonl", read_rows),
    "examples": _in("a.jsonl", lambda path: read_examples(path, lambda _: pytest.fail("no row"))),
    "observations": _in("observations.jsonl", lambda folder: list(read_flight(folder)), of_folder=True),
    "deployment": _in("deployments/1/deployment.json", lambda folder: Deployments(folder).all(), of_folder=True),
    "history": _in("deployments/history.jsonl", lambda folder: Deployments(folder).history(), of_folder=True),
    "trial": _in("deployments/trial", lambda folder: Deployments(folder).trial(), of_folder=True),
}


@pytest.mark.parametrize("name", READERS)
def test_deep_json_is_refused_or_passed_over(name: str, tmp_path: Path) -> None:
    """Neither json nor msgspec makes a decoding error of it."""
    try:
        assert not READERS[name](tmp_path) or name == "trial"
    except OverflightError as error:
        assert len(str(error).splitlines()) == 1


def test_a_live_flight_is_shown_without_the_rows_that_cannot_be_decoded(tmp_path: Path) -> None:
    """The newest rows of its journal are hostile; the one before them is shown."""
    good = msgspec.json.encode(Event("f-1", "begin", "x", 1, 1, 1, 0.5))
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as connection:
        connection.executescript(
            "CREATE TABLE observations (id INTEGER PRIMARY KEY, record);"
            "CREATE TABLE events (id INTEGER PRIMARY KEY, record);"
            "CREATE TABLE pictures (id INTEGER PRIMARY KEY, frame)"
        )
        for table in ("observations", "events"):
            connection.executemany(
                f"INSERT INTO {table} (record) VALUES (?)", [(DEEP,), (b"\xff",), (7,), (good,)][::-1]
            )
        shown = _read(connection, "one", ended=False)
    assert shown.frame is None
    assert [event.label for event in shown.events or ()] == ["x"]
