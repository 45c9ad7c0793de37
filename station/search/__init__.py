"""Exact search over an archive by sentences and pictures, with an answer that may be "not found"."""

from overflight.station.search.filters import Filters
from overflight.station.search.ranking import Hit
from overflight.station.search.search import Found, search
from overflight.station.search.terms import Terms

__all__ = ["Filters", "Found", "Hit", "Terms", "search"]
