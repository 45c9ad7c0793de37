"""Claims about a picture: supported, contradicted, or cannot tell, against counter-sentences."""

from overflight.station.claims.counters import counter_sentences
from overflight.station.claims.verify import Verdict, verify

__all__ = ["Verdict", "counter_sentences", "verify"]
