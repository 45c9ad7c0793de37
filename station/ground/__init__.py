"""Pictures of the ground, read in windows: their pixels, what is missing in them, and where they lie."""

from overflight.station.ground.picture import GroundPicture, GroundSample, open_picture

__all__ = ["GroundPicture", "GroundSample", "open_picture"]
