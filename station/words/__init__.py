"""The station's texts in English and Chinese."""

from overflight.station.words.words import LANGUAGES, Language, label_name, say

__all__ = ["LANGUAGES", "Language", "label_name", "say"]
