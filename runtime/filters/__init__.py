"""Which frames are evaluated: pace, similarity to the last frame, and picture quality."""
