"""Evaluating a bundle on a data set by published protocols."""

from __future__ import annotations

from overflight.station.evaluate.datasets import Dataset, open_dataset
from overflight.station.evaluate.run import evaluate

__all__ = ["Dataset", "evaluate", "open_dataset"]
