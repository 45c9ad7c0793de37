"""Follow a live source and print what changes: python examples/follow_camera.py /dev/video0"""

import sys

from overflight.runtime import Overflight

source = sys.argv[1] if len(sys.argv) > 1 else "test://?fps=25&frames=100"
with Overflight.load() as overflight:
    before = ""
    for observation in overflight.stream(source):
        label = observation.label or "unknown"
        if label != before:
            dropped = sum(observation.dropped.values())
            print(f"frame {observation.frame}: {label}, {observation.age_ns / 1e6:.0f} ms old, {dropped} dropped")
        before = label
