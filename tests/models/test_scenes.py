"""Templates held out of training stay out, and label texts read as people write them."""

from __future__ import annotations

from overflight.models import scenes
from overflight.models.tokens import canonicalise


def test_no_held_out_template_is_a_training_template() -> None:
    """The two sets share no prompt, also after the tokenizer's canonicalisation."""
    seen = {canonicalise(scenes.fill(t, "pond")) for t in scenes.TRAINING_TEMPLATES}
    unseen = {canonicalise(scenes.fill(t, "pond")) for t in scenes.HELD_OUT_TEMPLATES}
    assert not seen & unseen


def test_about_half_of_the_published_forms_are_held_out() -> None:
    """Nine of eighteen families and seven of eleven single templates."""
    assert len(scenes.FORMS[0::2]) == len(scenes.FORMS[1::2]) == 9
    assert len(scenes.HELD_OUT_TEMPLATES) >= 50


def test_templates_are_written_out() -> None:
    """Nothing but the name stays open, and articles fit their nouns."""
    for template in (*scenes.TRAINING_TEMPLATES, *scenes.HELD_OUT_TEMPLATES):
        assert template.count("{") == 1
        assert "{name}" in template
        assert not template.startswith("a aerial")


def test_folder_names_become_label_texts() -> None:
    """Camel case is split and lowered."""
    assert scenes.name_scene("BareLand") == "bare land"
    assert scenes.name_scene("MediumResidential") == "medium residential"
    assert scenes.name_scene("Airport") == "airport"
