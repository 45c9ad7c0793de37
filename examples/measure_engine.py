"""Time the engine that a flight would use on this device: python examples/measure_engine.py [BUNDLE]"""

import sys
import time

import numpy as np

from overflight.runtime.bundle import Bundle, default_bundle
from overflight.runtime.store import choose

bundle = Bundle.open(sys.argv[1] if len(sys.argv) > 1 else default_bundle())
chosen = choose(bundle)
frames = np.random.default_rng(0).integers(0, 256, (1, chosen.engine.side, chosen.engine.side, 3), np.uint8)
times_ms = []
for number in range(40):
    began_ns = time.perf_counter_ns()
    chosen.engine.embed(frames)
    if number >= 5:  # the first calls allocate
        times_ms.append((time.perf_counter_ns() - began_ns) / 1e6)
chosen.engine.close()
p50, p99 = np.percentile(times_ms, [50, 99])
print(f"{chosen.engine.info.target} {chosen.engine.info.precision}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
if chosen.note:
    print(chosen.note)
