"""A label file becomes a bank whose vectors are the ensembles it asks for, or a full list of its mistakes.

Covers: export/prompts.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from overflight.export.assemble import export
from overflight.export.encode import TextEncoder
from overflight.export.label_file import from_list, parse_text, parse_toml
from overflight.export.labels import Compilation, bank_path, compile_bank, compile_file, compile_labels, save_bank
from overflight.export.prompts import DEFAULT, Templates, read_templates
from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from overflight.runtime.bundle import Bundle

PLAIN = read_templates("plain")
FIXTURES = Path(__file__).parent / "fixtures"


def encode(bundle: Bundle, *texts: str) -> NDArray[np.float32]:
    with TextEncoder(bundle) as encoder:
        return encoder.encode(texts)


def unit_mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def toml(bundle: Bundle, source: str) -> Compilation:
    return compile_file(parse_toml(source, PLAIN, "x.toml", "x"), bundle)


def refusal(bundle: Bundle, source: str) -> list[str]:
    """Return the lines of the refusal of a .txt file."""
    with pytest.raises(UsageError) as error:
        compile_file(parse_text(source, PLAIN, "x.txt", "x"), bundle)
    return str(error.value).splitlines()


def test_a_label_is_the_unit_mean_of_its_unit_prompts(text_bundle: Bundle) -> None:
    """The ensemble is over templates and prompts alike, and normalised again."""
    source = """
    templates = ["a satellite photo of {}", "{} from above"]
    labels = ["river", { text = "quay", prompts = ["harbour", "port"] }]
    """
    bank = toml(text_bundle, source).bank
    river = encode(text_bundle, "a satellite photo of river", "river from above")
    quay = encode(
        text_bundle,
        *("a satellite photo of harbour", "harbour from above", "a satellite photo of port", "port from above"),
    )
    np.testing.assert_allclose(bank.vectors, [unit_mean(river), unit_mean(quay)], atol=1e-3)  # kept in 16 bit


def test_forms_that_differ_in_punctuation_alone_count_once(text_bundle: Bundle) -> None:
    """SigLIP drops punctuation: a second form that is the same to it must not weigh the ensemble."""
    source = 'templates = ["{}", "{}.", "{}!", "port {}"]\nlabels = ["river"]'
    compilation = toml(text_bundle, source)
    assert compilation.rows[0].prompts == 2
    expected = unit_mean(encode(text_bundle, "river", "port river"))
    np.testing.assert_allclose(compilation.bank.vectors[0], expected, atol=1e-3)


def test_the_bank_is_bound_to_its_tower_and_names_what_made_it(text_bundle: Bundle) -> None:
    """The header repeats the manifest's score, the groups, and the forms by name, once."""
    source = """
    name = "watch"
    background = ["A picture of nothing."]
    labels = [{ text = "river", threshold = 0.25 }]
    [groups.ground]
    exclusive = true
    templates = "remoteclip"
    labels = ["forest", "meadow"]
    """
    bank = toml(text_bundle, source).bank
    bank.check_fits(text_bundle.manifest)
    header, manifest = bank.header, text_bundle.manifest
    assert (header.name, header.model, header.exclusive) == ("watch", "tiny-random", ("ground",))
    assert (header.logit_scale, header.logit_bias) == (manifest.logit_scale, manifest.logit_bias)
    assert header.templates == {"plain": ("{}",), "remoteclip": ("a satellite photo of {}",)}
    river, forest, _, nothing = header.labels
    assert (river.threshold, river.group, river.background, river.templates) == (0.25, None, False, "plain")
    assert (forest.group, forest.templates, forest.prompts) == ("ground", "remoteclip", ("forest",))
    assert (nothing.background, nothing.templates) == (True, None)


def test_the_default_templates_stand_in_the_header(text_bundle: Bundle) -> None:
    """Who reads a bank sees which forms made it."""
    bank = compile_labels(["river", "beach"], text_bundle)
    assert bank.header.templates == {DEFAULT: read_templates(DEFAULT).forms}
    forms = [form.replace("{}", "beach") for form in read_templates(DEFAULT).forms]
    np.testing.assert_allclose(bank.vectors[1], unit_mean(encode(text_bundle, *forms)), atol=1e-3)


def test_a_sentence_stands_for_itself(text_bundle: Bundle) -> None:
    """No template is wrapped around a sentence."""
    bank = compile_labels(["many ships near a bridge.", "river"], text_bundle)
    np.testing.assert_allclose(bank.vectors[0], encode(text_bundle, "many ships near a bridge")[0], atol=1e-3)


def test_every_distinct_prompt_is_encoded_once(text_bundle: Bundle) -> None:
    """Two labels that share a prompt share its cost."""
    progress: list[tuple[int, int]] = []
    file = parse_toml(
        'labels = [{ text = "a", prompts = ["river", "port"] }, { text = "b", prompts = ["port", "beach"] }]',
        *(PLAIN, "x.toml", "x"),
    )
    compile_file(file, text_bundle, lambda done, total: progress.append((done, total)))
    assert progress == [(3, 3)]


def test_all_mistakes_are_listed_with_their_lines(text_bundle: Bundle) -> None:
    """Duplicates after canonicalisation, texts that are too long and texts of nothing, all at once."""
    long = " ".join(["river"] * 70)
    got = refusal(text_bundle, f"beach\nBeach\nstorage tanks\nstorage-tanks!\nstorage  tanks.\n{long}\n???\n")
    assert [line.split(": ")[1] for line in got] == ["line 2", "line 5", "line 6", "line 7"]
    assert "the same to the text tower as 'beach' of line 1" in got[0]
    assert "'storage tanks' of line 3" in got[1]
    assert "needs 71 tokens, the text tower takes 64" in got[2]
    assert "nothing of '???' is left" in got[3]


def test_duplicates_across_groups_and_prompts_are_refused(text_bundle: Bundle) -> None:
    """A label that means the same as another is refused wherever it stands; so is a prompt that is written twice."""
    source = """labels = ["river", { text = "stream", prompts = ["River."] }]
[groups.a]
labels = ["beach",
 { text = "x", prompts = ["port", "Port"] },
 "RIVER"]
"""
    with pytest.raises(UsageError) as error:
        toml(text_bundle, source)
    got = str(error.value).splitlines()
    assert [line.split(": ")[1] for line in got] == ["line 1", "line 4", "line 5"]
    assert "'stream' is the same to the text tower as 'river' of line 1" in got[0]
    assert "prompt 'Port' is the same to the text tower as 'port'" in got[1]


def test_two_labels_of_one_name_are_refused(text_bundle: Bundle) -> None:
    """Whatever their prompts, a report could not tell them apart."""
    source = 'labels = ["ship",\n { text = "Ship", prompts = ["port"] }]'
    with pytest.raises(UsageError, match="line 2: 'Ship' is reported already by line 1"):
        toml(text_bundle, source)


def test_a_template_can_make_a_text_too_long(text_bundle: Bundle) -> None:
    """The length that counts is that of the prompt, not of the label."""
    source = f'templates = ["{{}}", "{"river " * 62}{{}}"]\nlabels = ["beach port"]'
    with pytest.raises(UsageError, match=r"line 2: .* needs 65 tokens"):
        toml(text_bundle, source)


def test_near_duplicates_are_warned_of_with_their_cosine(text_bundle: Bundle) -> None:
    """Both labels, the cosine, and the form that tells them apart best; far ones are not named."""
    forms = ["{}", *(f"{'port ' * times}{{}}" for times in range(20, 60, 5))]
    (warning,) = toml(text_bundle, f'templates = {forms}\nlabels = ["river", "beach"]').warnings
    assert "'river' and 'beach' are nearly the same" in warning
    apart = float(np.prod([encode(text_bundle, "river"), encode(text_bundle, "beach")], axis=0).sum())
    assert warning.endswith(f"furthest apart in '{{}}': {apart:.3f}")
    assert toml(text_bundle, 'labels = ["river", "beach"]').warnings == ()


def test_near_duplicates_by_template_name_the_templates(text_bundle: Bundle) -> None:
    """Labels that differ in their templates alone are distinguished by these."""
    source = f"""
    labels = [{{ text = "river", prompts = ["{"river " * 20}port"] }},
              {{ text = "stream", prompts = ["river"], templates = "{"river " * 20}{{}}" }}]
    """
    (warning,) = toml(text_bundle, source).warnings
    assert warning.endswith("their templates differ: plain and own")


def test_rows_name_the_nearest_other_label(text_bundle: Bundle) -> None:
    """Each row's nearest label is another one, and the cosine is that of the kept vectors."""
    file = from_list(["river", "beach", "port", "meadow"], read_templates("remoteclip"), "x")
    compilation = compile_file(file, text_bundle)
    cosines = compilation.bank.vectors @ compilation.bank.vectors.T
    np.fill_diagonal(cosines, -2)
    for row, others in zip(compilation.rows, cosines, strict=True):
        assert row.nearest == file.entries[int(others.argmax())].text
        assert row.cosine == pytest.approx(float(others.max()))
    (row,) = compile_file(from_list(["river"], PLAIN, "x"), text_bundle).rows
    assert (row.nearest, row.cosine) == (None, None)


def test_the_nearest_of_two_is_the_other_even_where_they_are_opposed(text_bundle: Bundle) -> None:
    """A label is never its own neighbour."""
    words = ["river", "beach", "port", "meadow", "forest", "bridge", "church", "desert", "park", "pond"]
    vectors = encode(text_bundle, *words)
    a, b = np.unravel_index((vectors @ vectors.T).argmin(), (len(words), len(words)))
    row, _ = compile_file(from_list([words[a], words[b]], PLAIN, "x"), text_bundle).rows
    assert row.nearest == words[b]
    assert row.cosine is not None
    assert row.cosine < 0


def test_text_the_tower_cannot_read_is_warned_of(text_bundle: Bundle) -> None:
    """Chinese on an English vocabulary is encoded nonsense: the characters and their share are reported."""
    (warning,) = compile_file(parse_text("beach\n市场 river", PLAIN, "x.txt", "x"), text_bundle).warnings
    assert warning.startswith("x.txt: line 2: '市场 river': the text tower cannot read '市场' (33%")


def test_two_unreadable_labels_are_duplicates(text_bundle: Bundle) -> None:
    """Both are <unk> to the tower."""
    assert "the same to the text tower" in refusal(text_bundle, "市场\n河流")[0]


def test_compile_bank_reads_the_file_and_the_bank_survives_the_disk(text_bundle: Bundle, tmp_path: Path) -> None:
    """The bank is written next to its file and read back as it was."""
    path = tmp_path / "scenes.txt"
    path.write_text("river\nbeach\n")
    bank = compile_bank(path, text_bundle, templates="georsclip")
    save_bank(bank, bank_path(path))
    again = LabelBank.load(tmp_path / "scenes.safetensors")
    assert again.header == bank.header
    assert again.sha256 == bank.sha256
    np.testing.assert_array_equal(again.vectors, bank.vectors)


def test_a_bank_of_many_forms_stays_small(text_bundle: Bundle) -> None:
    """A thin link carries the forms once, not once per label."""
    words = ["river", "beach", "port", "meadow", "forest", "bridge", "church", "desert"]
    bank = compile_labels(words, text_bundle, templates="georsclip")
    assert len(str(bank.header.labels)) < 200 * len(words)


def test_where_the_bank_cannot_be_written_is_reported(text_bundle: Bundle, tmp_path: Path) -> None:
    """A missing directory is a wrong request."""
    with pytest.raises(UsageError, match=r"No such file .*-o BANK"):
        save_bank(compile_labels(["river"], text_bundle), tmp_path / "missing" / "x.safetensors")


def test_compile_labels_names_its_labels_by_number(text_bundle: Bundle) -> None:
    """A program's list has no lines; an empty one is refused."""
    with pytest.raises(
        UsageError, match="labels: label 2: 'River!' is the same to the text tower as 'river' of label 1"
    ):
        compile_labels(["river", "River!"], text_bundle)
    with pytest.raises(UsageError, match="holds no label"):
        compile_labels([], text_bundle)


@pytest.mark.parametrize(("kind", "context"), [("siglip", 64), ("siglip2", 64), ("clip", 77)])
@pytest.mark.usefixtures("no_torch")
def test_a_real_bundle_is_all_that_labels_need(
    kind: str, context: int, tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Export keeps every tokenizer file that matters: from the bundle alone the ids are the reference's."""
    checkpoint = tiny(kind, text={"vocab_size": 1000, "max_position_embeddings": context, "eos_token_id": 1})
    shutil.copytree(FIXTURES / kind, checkpoint, dirs_exist_ok=True)
    if kind == "siglip":
        (checkpoint / "tokenizer.json").unlink()
    bundle = export(checkpoint, tmp_path / "bundle")
    assert bundle.manifest.tokenising.kind == kind
    assert "tokenizer/tokenizer_config.json" in bundle.manifest.files
    golden = json.loads((FIXTURES / kind / "golden.json").read_text())
    with TextEncoder(bundle) as encoder:
        ids = encoder.tokeniser.encode([row["text"] for row in golden])
    assert ids.tolist() == [row["ids"] for row in golden]
    bank = compile_labels(["river", "storage tanks", "dense residential"], bundle)
    assert len({row.tobytes() for row in bank.vectors}) == 3


def test_labels_need_neither_torch_nor_onnx_nor_protobuf(text_bundle: Bundle, tmp_path: Path) -> None:
    """A field laptop compiles labels with onnxruntime and sentencepiece alone."""
    code = f"""if True:
        import sys
        for name in ("torch", "transformers", "onnx", "onnx_ir", "google.protobuf", "tokenizers", "rich"):
            sys.modules[name] = None
        from overflight.export.labels import compile_labels
        from overflight.runtime.bundle import Bundle
        compile_labels(["river", "beach"], Bundle.open({str(text_bundle.directory)!r})).save("bank.safetensors")
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert len(LabelBank.load(tmp_path / "bank.safetensors")) == 2


def test_templates_are_values() -> None:
    """Equal forms under one name are one."""
    assert Templates("own", ("{}",)) == Templates("own", ("{}",))
