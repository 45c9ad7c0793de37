"""Changes between two dates of one ground: registration, scores, labels, files."""
