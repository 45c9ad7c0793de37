"""`overflight labels` and `overflight similarity`, as a person calls them.

Covers: export/commands/labels.py, export/commands/similarity.py, export/similarity.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from overflight.cli import COMMANDS, overflight
from overflight.export.encode import TextEncoder
from overflight.export.similarity import compare
from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import SourceError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from overflight.runtime.bundle import Bundle


def call(*arguments: str | Path, code: int = 0) -> Result:
    """Call the command line; an error it tells the user is raised by the runner."""
    result = CliRunner().invoke(overflight, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return a still of one colour."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), np.full((40, 50, 3), (10, 120, 200), np.uint8))
    return path


@pytest.mark.parametrize("name", ["labels", "similarity"])
def test_the_list_of_commands_says_what_the_help_says(name: str) -> None:
    """The first line of the help is the one in the list, and an example follows."""
    text = call(name, "--help").output
    assert COMMANDS[name][1] in text
    assert f"overflight {name} " in text


def test_labels_writes_the_bank_next_to_its_file(text_bundle: Bundle, tmp_path: Path) -> None:
    """The table names every label, its prompts and its nearest neighbour; the last line says what was written."""
    path = tmp_path / "scenes.txt"
    path.write_text("river\nbeach\n[bold]\n")
    result = call("labels", path, "--bundle", text_bundle.directory, "--templates", "git-rsclip")
    bank = LabelBank.load(tmp_path / "scenes.safetensors")
    assert [label.text for label in bank.header.labels] == ["river", "beach", "[bold]"]
    assert "[bold]" in result.stdout
    assert "1 git-rsclip" in result.stdout
    assert "scenes.safetensors: 3 labels for tiny-random" in result.stdout.replace("\n", "")


def test_labels_as_json(text_bundle: Bundle, tmp_path: Path) -> None:
    """JSON holds what the table holds, the hash, and the warnings; nothing else is on standard output."""
    path = tmp_path / "scenes.toml"
    path.write_text('templates = "plain"\nbackground = ["sky"]\nlabels = ["river", "市场"]\n')
    out = tmp_path / "bank.safetensors"
    content = json.loads(call("labels", path, "--bundle", text_bundle.directory, "-o", out, "--json").stdout)
    bank = LabelBank.load(out)
    assert content["sha256"] == bank.sha256
    assert content["templates"] == {"plain": ["{}"]}
    assert [label["text"] for label in content["labels"]] == ["river", "市场", "sky"]
    assert content["labels"][2]["background"] is True
    assert len(content["warnings"]) == 1
    cosines = bank.vectors @ bank.vectors.T - 2 * np.eye(3)
    assert [label["cosine"] for label in content["labels"]] == pytest.approx(cosines.max(axis=1).tolist(), abs=1e-6)


def test_a_refused_file_leaves_the_old_bank(text_bundle: Bundle, tmp_path: Path) -> None:
    """Mistakes are reported with exit code 2, and what lay there stays whole."""
    path = tmp_path / "scenes.txt"
    path.write_text("river\n")
    call("labels", path, "--bundle", text_bundle.directory)
    before = (tmp_path / "scenes.safetensors").read_bytes()
    path.write_text("river\nRiver\n")
    with pytest.raises(UsageError, match="line 2") as error:
        call("labels", path, "--bundle", text_bundle.directory)
    assert error.value.exit_code == 2
    assert (tmp_path / "scenes.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_labels_never_overwrites_a_label_file(text_bundle: Bundle, tmp_path: Path) -> None:
    """-o with the label file's own name is a slip."""
    path = tmp_path / "scenes.txt"
    path.write_text("river\n")
    with pytest.raises(UsageError, match="is a label file's name"):
        call("labels", path, "--bundle", text_bundle.directory, "-o", path)
    assert path.read_text() == "river\n"


def test_similarity_is_the_cosine_and_the_sigmoid(text_bundle: Bundle, picture: Path) -> None:
    """score = sigmoid(exp(logit_scale)·cosine + logit_bias), best first, texts as given."""
    output = call("similarity", picture, "river", "Beach!", "--bundle", text_bundle.directory, "--json").stdout
    answers = json.loads(output)
    assert {answer["text"] for answer in answers} == {"river", "Beach!"}
    assert answers[0]["cosine"] >= answers[1]["cosine"]
    colour = np.array([200, 120, 10]) / np.linalg.norm([200, 120, 10])
    with TextEncoder(text_bundle) as encoder:
        for answer in answers:
            cosine = float(encoder.encode([answer["text"]])[0, :3] @ colour)
            assert answer["cosine"] == pytest.approx(cosine, abs=1e-4)
            assert answer["score"] == pytest.approx(1 / (1 + np.exp(-(np.exp(2.0) * cosine - 3.0))), abs=1e-4)
            assert answer["share"] is None


def test_similarity_shows_a_table(text_bundle: Bundle, picture: Path) -> None:
    """Every text has its line."""
    output = call(
        "similarity", picture, "river", "beach", "--bundle", text_bundle.directory, "--template", "{} from above"
    ).stdout
    assert "river from above" in output
    assert "beach from above" in output


def test_similarity_warns_of_what_the_tower_cannot_read(text_bundle: Bundle, picture: Path) -> None:
    """A text of unknown characters has a cosine all the same: it means nothing, and that is said."""
    result = call("similarity", picture, "river", "市场", "--bundle", text_bundle.directory)
    assert result.stderr == "warning: '市场': the text tower cannot read '市场'\n"


def test_similarity_of_a_softmax_tower_is_a_share(text_bundle: Bundle, picture: Path, tmp_path: Path) -> None:
    """CLIP gives no independent score: the shares of the given texts sum to one."""
    import shutil

    import msgspec

    from overflight.runtime.bundle import seal

    directory = tmp_path / "clip"
    shutil.copytree(text_bundle.directory, directory)
    bundle = seal(directory, msgspec.structs.replace(text_bundle.manifest, activation="softmax"))
    answers = compare(picture, ["river", "beach", "port"], bundle)
    assert sum(answer.share or 0 for answer in answers) == pytest.approx(1, abs=1e-5)
    assert all(answer.score is None for answer in answers)


def test_similarity_refuses_what_it_cannot_compare(text_bundle: Bundle, picture: Path) -> None:
    """A text that would be cut, a template without a place, a picture that is none."""
    with pytest.raises(UsageError, match="needs 71 tokens"):
        compare(picture, ["river " * 70], text_bundle)
    with pytest.raises(UsageError, match=r"expected one \{\}"):
        compare(picture, ["river"], text_bundle, template="no place")
    with pytest.raises(SourceError, match="No such file"):
        compare(picture.with_name("none.png"), ["river"], text_bundle)
