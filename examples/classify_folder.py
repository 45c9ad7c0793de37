"""Label every picture of a folder: python examples/classify_folder.py pictures/"""

import sys

from overflight.runtime import Overflight

with Overflight.load() as overflight:
    for observation in overflight.stream(sys.argv[1]):
        best = observation.scores[0]
        print(f"{observation.name}: {observation.label or 'unknown'} (best: {best.label}, {best.score:.3f})")
