"""Where devices are: places that are pure functions of device and simulated time.

Every model answers for any device at any time, in any order of the questions, and always the same.
Paths stay inside the disc of the cell, but may cross the ring of small distances around the base
station in which nobody starts: whoever computes path loss raises the distance to its smallest
permitted value.
"""

from wireless.mobility.base import Mobility, Places
from wireless.mobility.random_waypoint import RandomWaypoint
from wireless.mobility.straight import Linear, Static
from wireless.mobility.waypoints import Waypoints

__all__ = ["Linear", "Mobility", "Places", "RandomWaypoint", "Static", "Waypoints"]
