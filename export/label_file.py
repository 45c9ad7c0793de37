"""The label file: what a person writes, read with the line of every mistake."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from overflight.export.label_lines import Places
from overflight.export.prompts import SLOT, Templates, read_templates
from overflight.runtime.bank_limits import MOST_LABELS, MOST_PROMPTS
from overflight.runtime.bounded import read_regular
from overflight.runtime.errors import UsageError
from overflight.runtime.toml_input import TomlError, decode_toml

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = (".txt", ".toml")
MAX_BYTES = 16 << 20
MOST_MISTAKES = 100
MOST_MESSAGE = 1_000  # characters: a message may repeat what was written
_TOP = frozenset({"name", "templates", "threshold", "default_threshold", "background", "labels", "groups"})
_GROUP = frozenset({"exclusive", "templates", "threshold", "labels"})
_LABEL = frozenset({"text", "prompts", "templates", "threshold"})


@dataclass(frozen=True)
class LabelEntry:
    """One label as it was written: ``phrases`` are what is set into ``templates``, ``text`` is what is reported."""

    text: str
    phrases: tuple[str, ...]
    templates: Templates
    line: int
    group: str | None = None
    background: bool = False
    threshold: float | None = None


@dataclass(frozen=True)
class LabelFile:
    """The labels of one file, and the groups of which one label at most is true.

    An entry's ``line`` counts lines of a file, or the labels of a list: ``place`` says which. ``default_threshold``
    replaces the model's own.
    """

    source: str
    name: str
    entries: tuple[LabelEntry, ...]
    exclusive: tuple[str, ...] = ()
    place: str = "line"
    default_threshold: float | None = None


class Mistakes:
    """What is wrong with a file, collected so that a person sees it at once: a hundred in full, then a number."""

    def __init__(self, source: str, place: str = "line") -> None:
        self._source = source
        self.place = place
        self._found: list[tuple[int, str]] = []
        self._further = 0

    def add(self, line: int, message: str) -> None:
        """Note a mistake of one line."""
        if len(self._found) < MOST_MISTAKES:
            if len(message) > MOST_MESSAGE:  # what is wrong with it stands at the end
                message = f"{message[: MOST_MESSAGE // 2]} … {message[-MOST_MESSAGE // 2 :]}"
            self._found.append((line, message))
        else:
            self._further += 1

    def refuse(self) -> None:
        """Raise UsageError with every mistake, if there is one."""
        if self._found:
            lines = [f"{self._source}: {self.place} {line}: {message}" for line, message in sorted(self._found)]
            if self._further:
                lines.append(f"{self._source}: {self._further:,} further mistakes; correct these first")
            raise UsageError("\n".join(lines))


def read_label_file(path: Path, templates: Templates) -> LabelFile:
    """Read a ``.txt`` or ``.toml`` label file; ``templates`` serve where the file names none.

    Raises UsageError that lists every mistake with its line.
    """
    try:
        raw = read_regular(path, MAX_BYTES, UsageError)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; expected a .txt or .toml file of labels") from error
    try:
        source = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{path}: line {line}: not UTF-8; save the file as UTF-8") from error
    match path.suffix.lower():
        case ".txt":
            return parse_text(source, templates, str(path), path.stem)
        case ".toml":
            return parse_toml(source, templates, str(path), path.stem)
        case suffix:
            raise UsageError(f"{path}: ends in {suffix!r}; expected .txt (one label per line) or .toml")


def parse_text(source: str, templates: Templates, origin: str, name: str) -> LabelFile:
    """Read one label per line; blank lines and lines that begin with ``#`` are left out."""
    lines = list(enumerate(re.split(r"\r\n|\r|\n", source), start=1))
    labels = [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    return _from_texts(labels, templates, Mistakes(origin), origin, name)


def from_list(texts: list[str], templates: Templates, name: str) -> LabelFile:
    """Take labels from a program; a mistake names the label by its number, from 1."""
    return _from_texts(list(enumerate(texts, start=1)), templates, Mistakes(name, "label"), name, name)


def parse_toml(source: str, templates: Templates, origin: str, name: str) -> LabelFile:
    """Read groups, templates, prompts, background and thresholds; ``docs/labels.md`` describes the form."""
    try:
        table = decode_toml(source)
    except TomlError as error:
        place = re.search(r" \(at line (\d+), column \d+\)", str(error))
        line = place.group(1) if place else len(source.splitlines())
        reason = str(error).split(" (at ")[0]
        raise UsageError(f"{origin}: line {line}: not TOML: {reason}") from error
    return _Reader(source, templates, origin).read(table, name)


def _from_texts(
    labels: list[tuple[int, str]], templates: Templates, mistakes: Mistakes, origin: str, name: str
) -> LabelFile:
    _check_number(len(labels), origin)
    entries = []
    for line, text in labels:
        clean = _clean(text)
        if isinstance(clean, _Refusal):
            mistakes.add(line, clean.reason)
        else:
            entries.append(LabelEntry(clean, (clean,), templates, line))
    mistakes.refuse()
    if not entries:
        _refuse_empty(origin)
    return LabelFile(origin, name, tuple(entries), place=mistakes.place)


def _check_number(labels: int, origin: str) -> None:
    """Refuse what no bank takes before anything is encoded. Raises UsageError."""
    if labels > MOST_LABELS:
        raise UsageError(f"{origin}: {labels:,} labels; a bank takes at most {MOST_LABELS:,}; divide the file")


def _refuse_empty(origin: str) -> NoReturn:
    raise UsageError(f"{origin}: holds no label; write one per line")


@dataclass(frozen=True)
class _Refusal:
    reason: str


def _clean(text: object) -> str | _Refusal:
    """Collapse the white space of a text, or say why it is none."""
    if not isinstance(text, str):
        return _Refusal(f"got {text!r}, expected a text in quotes")
    clean = " ".join(text.split())
    if not clean:
        return _Refusal("an empty text; remove it")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in clean):
        return _Refusal(f"{clean!r} holds a control character; type the text again")
    return clean


class _Reader:
    """Turns a TOML table into entries, noting mistakes as it goes."""

    def __init__(self, source: str, templates: Templates, origin: str) -> None:
        self.templates = templates
        self.origin = origin
        self.mistakes = Mistakes(origin)
        self.places = Places(source)
        self.own: dict[tuple[str, ...], Templates] = {}

    def read(self, table: dict[str, Any], name: str) -> LabelFile:
        self.check_keys(table, _TOP, 0)
        line = self.places.key("name", 0)
        clean = _clean(table.get("name", name))
        if isinstance(clean, _Refusal):
            self.mistakes.add(line, f"name: {clean.reason}")
        templates = self.read_templates(table, self.templates, self.places.key("templates", 0))
        threshold = self.read_threshold(table, None, self.places.key("threshold", 0))
        default = self.read_threshold(table, None, self.places.key("default_threshold", 0), "default_threshold")
        entries = self.read_labels(table, templates, threshold, None, 0)
        groups = table.get("groups", {})
        if not isinstance(groups, dict):
            self.mistakes.add(self.places.key("groups", 0), "groups: expected tables such as [groups.ground]")
            groups = {}
        for group, content in groups.items():
            entries += self.read_group(group, content, templates, threshold)
        entries += self.read_background(table, templates)
        self.mistakes.refuse()
        _check_number(len(entries), self.origin)
        if all(entry.background for entry in entries):
            _refuse_empty(self.origin)
        exclusive = tuple(group for group, content in groups.items() if content.get("exclusive"))
        return LabelFile(self.origin, str(clean), tuple(entries), exclusive, default_threshold=default)

    def read_group(self, group: str, table: object, templates: Templates, threshold: float | None) -> list[LabelEntry]:
        line = self.places.group(group)
        if not isinstance(table, dict):
            self.mistakes.add(line, f"group {group!r}: expected a table with labels")
            return []
        self.check_keys(table, _GROUP, line)
        if not isinstance(flag := table.get("exclusive", False), bool):
            self.mistakes.add(self.places.key("exclusive", line), f"exclusive: got {flag!r}, expected true or false")
        templates = self.read_templates(table, templates, self.places.key("templates", line))
        threshold = self.read_threshold(table, threshold, self.places.key("threshold", line))
        entries = self.read_labels(table, templates, threshold, group, line)
        if not table.get("labels"):
            self.mistakes.add(line, f"group {group!r} holds no label; remove it or add labels")
        return entries

    def read_labels(
        self, table: dict[str, Any], templates: Templates, threshold: float | None, group: str | None, after: int
    ) -> list[LabelEntry]:
        labels = table.get("labels", [])
        if not isinstance(labels, list):
            self.mistakes.add(self.places.key("labels", after), f"labels: got {labels!r}, expected a list")
            return []
        _check_number(len(labels), self.origin)
        self.places.seek(self.places.key("labels", after))
        entries = [self.read_label(label, templates, threshold, group) for label in labels]
        return [entry for entry in entries if entry is not None]

    def read_label(
        self, label: object, templates: Templates, threshold: float | None, group: str | None
    ) -> LabelEntry | None:
        table = label if isinstance(label, dict) else {"text": label}
        text = _clean(table.get("text"))
        line = self.places.follow(table)
        self.check_keys(table, _LABEL, line, inline=True)
        if isinstance(text, _Refusal):
            self.mistakes.add(line, f"label: {text.reason}")
            return None
        phrases = self.read_phrases(table.get("prompts", [text]), line)
        templates = self.read_templates(table, templates, line)
        return LabelEntry(text, phrases, templates, line, group, False, self.read_threshold(table, threshold, line))

    def read_phrases(self, prompts: object, line: int) -> tuple[str, ...]:
        if not isinstance(prompts, list) or not prompts:
            self.mistakes.add(line, f"prompts: got {prompts!r}, expected a list of texts")
            return ()
        if len(prompts) > MOST_PROMPTS:
            self.mistakes.add(line, f"prompts: {len(prompts):,} texts, expected at most {MOST_PROMPTS:,}")
            return ()
        phrases = []
        for prompt in prompts:
            clean = _clean(prompt)
            if isinstance(clean, _Refusal):
                self.mistakes.add(line, f"prompt: {clean.reason}")
            else:
                phrases.append(clean)
        return tuple(phrases)

    def read_background(self, table: dict[str, Any], templates: Templates) -> list[LabelEntry]:
        texts = table.get("background", [])
        self.places.seek(self.places.key("background", 0))
        if not isinstance(texts, list):
            self.mistakes.add(self.places.line, f"background: got {texts!r}, expected a list of texts")
            return []
        _check_number(len(texts), self.origin)
        entries = []
        for text in texts:
            clean, line = _clean(text), self.places.follow(text)
            if isinstance(clean, _Refusal):
                self.mistakes.add(line, f"background: {clean.reason}")
            else:
                entries.append(LabelEntry(clean, (clean,), templates, line, background=True))
        return entries

    def read_templates(self, table: dict[str, Any], inherited: Templates, line: int) -> Templates:
        match table.get("templates"):
            case None:
                return inherited
            case str() as name if SLOT not in name:
                try:
                    return read_templates(name)
                except UsageError as error:
                    self.mistakes.add(line, str(error))
            case str() as form:
                return self.own_templates((form,), line)
            case [*forms] if forms and all(isinstance(form, str) for form in forms):
                return self.own_templates(tuple(forms), line)
            case other:
                self.mistakes.add(line, f"templates: got {other!r}, expected a name or a list of forms with {SLOT}")
        return inherited

    def own_templates(self, forms: tuple[str, ...], line: int) -> Templates:
        for form in forms:
            if form.count(SLOT) != 1:
                self.mistakes.add(line, f"template {form!r}: expected one {SLOT} where the label stands")
        number = len(self.own) + 1
        return self.own.setdefault(forms, Templates("own" if number == 1 else f"own-{number}", forms))

    def read_threshold(
        self, table: dict[str, Any], inherited: float | None, line: int, key: str = "threshold"
    ) -> float | None:
        value = table.get(key)
        if value is None:
            return inherited
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            self.mistakes.add(line, f"{key}: got {value!r}, expected a score between 0 and 1")
            return inherited
        return float(value)

    def check_keys(self, table: dict[str, Any], known: frozenset[str], line: int, *, inline: bool = False) -> None:
        for key in (key for key in table if key not in known):
            place = line if inline else self.places.key(key, line)
            self.mistakes.add(place, f"unknown key {key!r}; known here: {', '.join(sorted(known))}")
