"""Layouts: how each publisher names a model's tensors and settings."""
