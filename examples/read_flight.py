"""Read a flight's journal: python examples/read_flight.py FLIGHT"""

import sys
from collections import Counter
from pathlib import Path

from overflight.runtime.flight.directory import JOURNAL, read_record
from overflight.runtime.flight.journal_reader import read_embeddings, read_events, read_observations

flight = Path(sys.argv[1])
record = read_record(flight)
print(f"{record.source}: {record.observed} frames, dropped {record.dropped}, ended: {record.ended_because}")
labels = Counter(observation.label or "unknown" for observation in read_observations(flight / JOURNAL))
for label, count in labels.most_common():
    print(f"  {label}: {count} frames")
for event in read_events(flight / JOURNAL):
    print(f"  event: {event}")
frames, embeddings = read_embeddings(flight / JOURNAL)
print(f"  embeddings {embeddings.shape} of {len(frames)} frames, for labels that are written later")
