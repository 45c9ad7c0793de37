"""Large TIFF files read in windows, and where they lie on the earth: orthomosaics and elevation models."""

from __future__ import annotations
