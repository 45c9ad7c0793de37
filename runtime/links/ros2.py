"""ROS 2: events as ``vision_msgs/Classification`` and, whole, as JSON in ``std_msgs/String``.

rclpy belongs to the system's Python, so it is imported only here, and messages are built from classes handed in: how
they are filled is tested without ROS. ROS acknowledges nothing: an event counts as delivered when the middleware has
it, which keeps the last hundred for a subscriber that comes late (reliable, transient local).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from overflight.runtime.errors import MissingError
from overflight.runtime.links.message import LinkDown, Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from overflight.runtime.event import Event

DEPTH = 100
FRAME = "overflight_camera"


class Ros2Link:
    """A node of its own, ``overflight``, under the namespace of the address."""

    overhead_bytes = 60
    grace_s = 0.0
    refresh_s: float | None = None

    def __init__(self, namespace: str) -> None:
        try:
            import rclpy
            from std_msgs.msg import String
            from vision_msgs.msg import Classification, ObjectHypothesis
        except ImportError as error:
            raise MissingError(
                f"{error.name or 'rclpy'} is not here; install ros-humble-vision-msgs and source the ROS 2 setup, "
                "with the system's own Python"
            ) from error
        self._rclpy: Any = rclpy
        self._types: tuple[Callable[[], Any], Callable[[], Any]] = Classification, ObjectHypothesis
        self._string: Callable[[], Any] = String
        self._namespace = namespace
        self._node: Any = None

    def open(self) -> None:
        """Make the node and its topics."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        try:
            if not self._rclpy.ok():
                self._rclpy.init()
            self._node = self._rclpy.create_node("overflight", namespace=self._namespace)
        except Exception as error:
            raise LinkDown(f"ros2: {error}") from error
        profile = QoSProfile(
            depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        self._classes = self._node.create_publisher(self._types[0], "~/classification", profile)
        self._events = self._node.create_publisher(self._string, "~/events", profile)

    def check(self) -> None:
        """Nothing to see: the middleware finds its peers itself."""

    def encode(self, message: Message, *, brief: bool) -> bytes | None:
        """Return the event as JSON; pictures are not carried, ROS has the camera's own topic."""
        return None if message.kind == "thumbnail" else msgspec.json.encode(message.event)

    def send(self, message: Message, payload: bytes) -> None:
        """Publish on both topics."""
        whole = self._string()
        whole.data = payload.decode()
        try:
            self._classes.publish(classification(message.event, *self._types))
            self._events.publish(whole)
        except Exception as error:
            raise LinkDown(f"ros2: {error}") from error

    def close(self) -> None:
        """Take the node away."""
        if self._node is not None:
            with suppress(Exception):
                self._node.destroy_node()
            self._node = None


def classification(event: Event, message: Callable[[], Any], hypothesis: Callable[[], Any]) -> Any:
    """Fill a ``vision_msgs/Classification``, stamped with the frame's capture time, 0 if unknown."""
    result = hypothesis()
    result.class_id = event.label
    result.score = float(event.score)
    filled = message()
    filled.header.frame_id = FRAME
    filled.header.stamp.sec, filled.header.stamp.nanosec = divmod(event.utc_ns or 0, 1_000_000_000)
    filled.results = [] if event.type == "end" else [result]
    return filled
