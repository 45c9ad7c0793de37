"""The only room that flies: numpy, one engine, a camera. No torch, no transformers, no text tower."""

from overflight.runtime.bank import LabelBank
from overflight.runtime.errors import OverflightError
from overflight.runtime.frame import Frame
from overflight.runtime.overflight import Overflight
from overflight.runtime.records import Observation

__all__ = ["Frame", "LabelBank", "Observation", "Overflight", "OverflightError"]
