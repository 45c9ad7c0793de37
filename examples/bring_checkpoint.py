"""Export a checkpoint of your own and make labels for it: python examples/bring_checkpoint.py CHECKPOINT BUNDLE"""

import sys
from pathlib import Path

from overflight.export.assemble import export
from overflight.export.labels import compile_labels
from overflight.runtime import Overflight

checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2])
bundle = export(checkpoint, out)  # compared with a reference before the bundle appears
print(f"{bundle.manifest.name}: {bundle.manifest.width} numbers per embedding, parity {bundle.manifest.parity}")
bank = compile_labels(["river", "storage tanks", "dense residential area"], bundle)
bank.save(out.with_suffix(".safetensors"))
video = Path(__file__).parents[1] / "station" / "demo" / "flight.mp4"
with Overflight.load(bundle, bank) as overflight:
    observation = next(iter(overflight.stream(str(video))))
    print(f"first frame: {observation.label or 'unknown'}")
