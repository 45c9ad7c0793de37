"""Overflight labels what a drone's camera sees, on board, without the network and without training."""

__version__ = "0.1.0"

__all__ = ["__version__"]
