"""Replace the labels in flight, between two frames: python examples/swap_labels.py [VIDEO]"""

import sys
from pathlib import Path

from overflight.export.labels import compile_labels
from overflight.runtime import Overflight

source = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parents[1] / "station" / "demo" / "flight.mp4")
with Overflight.load() as overflight:
    print("first bank:", overflight.bank.sha256[:16])
    ground = compile_labels(["road", "river", "farmland"], overflight.bundle)  # on the ground; only the bank flies
    banks = []
    for observation in overflight.stream(source):
        if observation.frame == 20:
            overflight.use(ground)
        if observation.bank not in banks:
            banks.append(observation.bank)
            print(f"frame {observation.frame}: bank {observation.bank}, {observation.label or 'unknown'}")
        if observation.frame >= 40:
            break
