"""The structured description of a picture, a mosaic or a flight: place, cover, state, season and quality."""

from overflight.station.describe.describe import describe_flight, describe_picture
from overflight.station.describe.record import Description, Field

__all__ = ["Description", "Field", "describe_flight", "describe_picture"]
