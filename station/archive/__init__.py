"""The archive: flights kept together on the ground, so that what they saw can be found again."""

from overflight.station.archive.store import Archive, ArchivedFlight

__all__ = ["Archive", "ArchivedFlight"]
