"""The links a drone really has: events to brokers, autopilots, maps and web servers, kept on disk until they arrive."""

from __future__ import annotations

from overflight.runtime.links.dispatch import Links, LinkStatus

__all__ = ["LinkStatus", "Links"]
