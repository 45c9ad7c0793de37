"""The thirty scenes as label texts, and the prompt templates that training may and may not see."""

from __future__ import annotations

import re

NOUNS = ("remote sensing image", "aerial image", "satellite image")
FORMS = (
    "a {noun} of many {name}",
    "a {noun} of {article} {name}",
    "a {noun} of {article} hard to see {name}",
    "a low resolution {noun} of {article} {name}",
    "a bad {noun} of {article} {name}",
    "a cropped {noun} of {article} {name}",
    "a bright {noun} of {article} {name}",
    "a dark {noun} of {article} {name}",
    "a close-up {noun} of {article} {name}",
    "a black and white {noun} of {article} {name}",
    "a jpeg corrupted {noun} of {article} {name}",
    "a blurry {noun} of {article} {name}",
    "a good {noun} of {article} {name}",
    "a {noun} of {article} large {name}",
    "a {noun} of {article} nice {name}",
    "a {noun} of {article} small {name}",
    "a {noun} of {article} weird {name}",
    "a {noun} of {article} cool {name}",
)
SINGLE_TRAINING = (
    "a remote sensing image of {name}",
    "a satellite image of {name}",
    "an aerial photograph of {name}",
    "{name} from above",
)
SINGLE_HELD_OUT = (
    "a satellite photo of {name}",
    "a satellite photo of a {name}",
    "a centered satellite photo of {name}",
    "a centered satellite photo of a {name}",
    "a centered satellite photo of the {name}",
    "an aerial view of {name}",
    "satellite imagery of {name}",
)


def expand(forms: tuple[str, ...]) -> list[str]:
    """Write out noun and article of every form, leaving `{name}` open."""
    texts: list[str] = []
    for form in forms:
        articles = ("the", "a") if "{article}" in form else ("",)
        for noun in NOUNS:
            for article in articles:
                text = form.replace("{noun}", noun).replace("{article}", article)
                texts.append(re.sub(r"^a (?=a)", "an ", text))
    return texts


TRAINING_TEMPLATES = (*SINGLE_TRAINING, *expand(FORMS[0::2]))
HELD_OUT_TEMPLATES = (*SINGLE_HELD_OUT, *expand(FORMS[1::2]))


def name_scene(folder: str) -> str:
    """Turn a folder name into its label text: `BareLand` becomes `bare land`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", folder).lower()


def fill(template: str, name: str) -> str:
    """Put a label text into a template."""
    return template.replace("{name}", name)
