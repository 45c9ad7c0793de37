"""From frames to a calibration set, to ranges, to a quantised graph with its fidelity."""
