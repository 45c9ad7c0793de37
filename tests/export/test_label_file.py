"""A label file is read as its author meant it, and every mistake is reported with its line.

Covers: export/label_lines.py, export/tables.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overflight.export.label_file import LabelFile, from_list, parse_text, parse_toml, read_label_file
from overflight.export.prompts import DEFAULT, Templates, is_sentence, read_templates, template_names
from overflight.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAIN = Templates("plain", ("{}",))


def text(source: str) -> LabelFile:
    return parse_text(source, PLAIN, "x.txt", "x")


def toml(source: str) -> LabelFile:
    return parse_toml(source, PLAIN, "x.toml", "x")


def mistakes(source: str) -> list[str]:
    """Return the lines of the refusal of a TOML file."""
    with pytest.raises(UsageError) as error:
        toml(source)
    return str(error.value).splitlines()


def test_text_is_one_label_per_line() -> None:
    """Comments, blank lines and outer white space are left out; lines keep their numbers, whatever ends them."""
    file = text("# scenes\n\n  river \r\nstorage  tanks\rNo. 7 # berth\n")
    assert [(entry.text, entry.line) for entry in file.entries] == [
        ("river", 3),
        ("storage tanks", 4),
        ("No. 7 # berth", 5),
    ]


@pytest.mark.parametrize("source", ["", "\n\n", "# only a comment\n"])
def test_a_file_without_labels_is_refused(source: str) -> None:
    """No label is no bank."""
    with pytest.raises(UsageError, match="holds no label"):
        text(source)
    with pytest.raises(UsageError, match="holds no label"):
        toml(source + 'background = ["sky"]')


@pytest.mark.parametrize(
    ("phrase", "sentence"),
    [
        ("river", False),
        ("industrial buildings or commercial buildings", False),
        ("river protection forest", False),
        ("A village under water.", True),
        ("Is the bridge gone?", True),
        ("cars parked along the river bank", True),
        ("aerial view of a quarry", True),
        ("satellite imagery of ships", True),
        ("viewpoint", False),
        ("river.", False),
    ],
)
def test_sentences_are_their_own_prompts(phrase: str, sentence: bool) -> None:
    """Names are set into templates; what ends like a sentence, is long or names the picture is taken as it is."""
    assert is_sentence(phrase) == sentence
    assert read_templates("git-rsclip").fill(phrase) == (
        (phrase,) if sentence else (f"a remote sensing image of {phrase}",)
    )


def test_the_shipped_templates_are_the_published_ones() -> None:
    """Every form has one place for the label and stands once in its set; GeoRSCLIP's are 105."""
    assert DEFAULT in template_names()
    for name in template_names():
        forms = read_templates(name).forms
        assert forms, name
        assert len(set(forms)) == len(forms), name
        assert all(form.count("{}") == 1 for form in forms), name
    assert read_templates("git-rsclip").forms == ("a remote sensing image of {}",)
    assert read_templates("remoteclip").forms == ("a satellite photo of {}",)
    assert read_templates("skyscript").forms == ("a satellite photo of {}.", "a satellite image of {}")
    georsclip = read_templates("georsclip").forms
    assert len(georsclip) == 105
    assert {"an aerial image of many {}.", "a jpeg corrupted satellite image of a {}."} < set(georsclip)


def test_unknown_templates_are_refused_with_the_known() -> None:
    """A misspelt name lists what there is."""
    with pytest.raises(UsageError, match=r"no templates named 'georsclp'; there are aerial, .*georsclip"):
        read_templates("georsclp")


FULL = """
name = "harbour watch"
templates = "git-rsclip"
threshold = 0.2
background = ["open sea", 'A picture of "nothing" in particular.']
labels = ["ship", { text = "oil spill", prompts = ["oil film", "slick"], threshold = 0.01 }]

[groups.ground]
exclusive = true
templates = ["a drone photo of {}", "{} from above"]
labels = [
  "forest",  # a comment with "quotes"
  { text = "meadow", templates = "plain" },
]

[groups."quay side"]
threshold = 0.5
labels = ["crane"]
"""


def test_toml_holds_groups_templates_prompts_background_and_thresholds() -> None:
    """What stands nearer to a label overrules what stands farther; lines are those of the file."""
    file = toml(FULL)
    assert file.name == "harbour watch"
    assert file.exclusive == ("ground",)
    entries = {entry.text: entry for entry in file.entries}
    assert list(entries) == [
        "ship", "oil spill", "forest", "meadow", "crane", "open sea", 'A picture of "nothing" in particular.',
    ]  # fmt: skip
    assert entries["oil spill"].phrases == ("oil film", "slick")
    assert [entry.threshold for entry in entries.values()] == [0.2, 0.01, 0.2, 0.2, 0.5, None, None]
    assert [entry.group for entry in entries.values()] == [None, None, "ground", "ground", "quay side", None, None]
    assert [entry.templates.name for entry in entries.values()] == [
        "git-rsclip", "git-rsclip", "own", "plain", "git-rsclip", "git-rsclip", "git-rsclip",
    ]  # fmt: skip
    assert entries["forest"].templates.forms == ("a drone photo of {}", "{} from above")
    assert [entry.line for entry in entries.values()] == [6, 6, 12, 13, 18, 5, 5]
    assert [entry.text for entry in file.entries if entry.background] == list(entries)[-2:]


def test_every_mistake_of_a_file_is_told_with_its_line() -> None:
    """The author sees all of them at once, sorted, each with what was expected."""
    got = mistakes("""
templates = "georsclp"
colour = "red"
labels = ["", 7, { text = "a", threshold = 1.5 },
  { text = "b", prompts = [] },
  { text = "c", promts = ["x"] },
]
[groups.ground]
exclusive = "yes"
threshold = true
templates = ["no slot"]
labels = ["d"]
[groups.empty]
labels = []
""")
    assert [line.split(": ", 2)[1] for line in got] == [
        f"line {number}" for number in (2, 3, 4, 4, 4, 5, 6, 9, 10, 11, 13)
    ]
    reported = "\n".join(got)
    for part in (
        "'georsclp'",
        "'colour'",
        "1.5",
        "prompts: got []",
        "'promts'",
        "'yes'",
        "True",
        "'no slot'",
        "'empty'",
    ):
        assert part in reported


@pytest.mark.parametrize(
    ("source", "reported"),
    [
        ('labels = "river"', "expected a list"),
        ('labels = ["a"]\ngroups = 3', "expected tables"),
        ('labels = ["a"]\n[groups]\nx = 3', "line 3: group 'x': expected a table"),
        ('labels = ["a"]\nbackground = "sky"', "line 2: background: got 'sky', expected a list"),
        ('labels = ["a"]\nbackground = [""]', "line 2: background: an empty text"),
        ('labels = ["a", { prompts = ["x"] }]', "label: got None, expected a text"),
        ('labels = ["a", { text = "x", prompts = ["y", 3] }]', "prompt: got 3"),
        ('labels = ["a"]\nname = 3', "line 2: name: got 3"),
        ('labels = ["a"]\ntemplates = []', "line 2: templates: got []"),
        ('labels = ["a"]\ntemplates = "{} and {}"', "line 2: template '{} and {}': expected one {}"),
        ('labels = ["a\\u0007b"]', "holds a control character"),
        ("labels = [\n'a'\n'b']", "line 3: not TOML"),
        ('labels = ["a"', "line 1: not TOML"),
        ("x = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_each_mistake_is_reported(source: str, reported: str) -> None:
    """What was got, what was expected, in which line."""
    assert reported in "\n".join(mistakes(source))


def test_a_text_that_stands_in_several_places_has_its_own_lines() -> None:
    """Names, templates, headers, comments, keys and prompts with a label's text do not take its line."""
    file = toml("""name = "river"  # "river"
labels = [{ text = "x", prompts = ["river", "beach"], templates = "plain" },
  'beach', { "text" = "river" },
  "plain",
]
templates = "plain"
threshold = 0.5
[groups."river"]  # groups
"labels" = ["a", "river",
  "river"]
""")
    assert [(entry.text, entry.line) for entry in file.entries] == [
        ("x", 2), ("beach", 3), ("river", 3), ("plain", 4), ("a", 9), ("river", 9), ("river", 10),
    ]  # fmt: skip


def test_a_tables_key_is_not_taken_for_a_labels() -> None:
    """A mistake of the file is reported with its own line, though a label has the same key before it."""
    source = 'labels = [{ text = "a", templates = "plain", threshold = 0.5 }]\ntemplates = "x"\nthreshold = 2'
    assert [line.split(": ")[1] for line in mistakes(source)] == ["line 2", "line 3"]


def test_one_form_may_stand_alone() -> None:
    """`templates` may be a single form instead of a list, and equal forms share a name."""
    file = toml(
        'templates = "a drone photo of {}"\nlabels = ["a", { text = "b", templates = ["a drone photo of {}"] }]'
    )
    assert {entry.templates for entry in file.entries} == {Templates("own", ("a drone photo of {}",))}


def test_files_are_read_by_their_ending(tmp_path: Path) -> None:
    """.txt and .toml are known, a byte order mark is forgiven, anything else is refused."""
    path = tmp_path / "scenes.TXT"
    path.write_bytes("\ufeffriver\n".encode())
    file = read_label_file(path, PLAIN)
    assert (file.name, file.entries[0].text) == ("scenes", "river")
    other = path.rename(tmp_path / "scenes.csv")
    with pytest.raises(UsageError, match=r"ends in '\.csv'; expected \.txt .* or \.toml"):
        read_label_file(other, PLAIN)
    with pytest.raises(UsageError, match="No such file"):
        read_label_file(path, PLAIN)


def test_what_is_not_utf8_is_told_with_its_line(tmp_path: Path) -> None:
    """A file saved in another encoding names the line of the first strange byte."""
    path = tmp_path / "x.txt"
    path.write_bytes(b"river\ncaf\xe9\n")
    with pytest.raises(UsageError, match="line 2: not UTF-8"):
        read_label_file(path, PLAIN)


def test_lists_name_labels_by_number() -> None:
    """A program's list has no lines."""
    with pytest.raises(UsageError, match="labels: label 2: an empty text"):
        from_list(["river", " "], PLAIN, "labels")


@pytest.mark.parametrize("parse", [text, toml])
@given(source=st.text())
def test_any_text_is_labels_or_a_usage_error(parse: Callable[[str], LabelFile], source: str) -> None:
    """The parser never crashes, whatever it is given."""
    try:
        file = parse(source)
    except UsageError as error:
        assert str(error)
    else:
        assert all(entry.text.strip() == entry.text != "" for entry in file.entries)


TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "prompts", "templates", "threshold", "labels", "exclusive"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["name", "templates", "threshold", "background", "labels", "groups"]), TOML_VALUES)
)
def test_any_table_is_labels_or_a_usage_error(table: dict[str, object]) -> None:
    """Every key may hold anything: it is read or refused."""
    import json

    def write(value: object) -> str:
        match value:
            case dict():
                return "{" + ", ".join(f"{key} = {write(inner)}" for key, inner in value.items()) + "}"
            case list():
                return "[" + ", ".join(map(write, value)) + "]"
            case float():
                return repr(value)
            case None:
                return '""'
            case _:
                return json.dumps(value)

    source = "\n".join(f"{key} = {write(value)}" for key, value in table.items())
    try:
        toml(source)
    except UsageError as error:
        assert str(error)
