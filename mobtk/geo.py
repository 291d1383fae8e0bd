"""What is known of the earth."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

EARTH_KM = 6371.0
"""Its mean radius."""

EQUATOR, ECCENTRICITY_SQUARED = 6_378_137.0, 0.0066943799901413165
"""Of the ellipsoid of WGS84: its larger half axis in metres, and its eccentricity."""


def metres_a_degree(lat: float) -> tuple[float, float]:
    """Of longitude and of latitude, where the ellipsoid is touched at this latitude."""
    sine = math.sin(math.radians(lat))
    narrow = 1 - ECCENTRICITY_SQUARED * sine * sine
    east = EQUATOR / math.sqrt(narrow) * math.cos(math.radians(lat))
    return math.radians(east), math.radians(EQUATOR * (1 - ECCENTRICITY_SQUARED) / narrow**1.5)


def to_local(lat: ArrayLike, lon: ArrayLike, origin: tuple[float, float]) -> NDArray[np.float64]:
    """``(n, 2)`` metres east and north of an origin (latitude and longitude), as on a plane that touches the earth there.

    A map of a town: at 50 degrees north, what lies 10 km north of the origin is stretched by .2 % from east to west.
    :func:`from_local` undoes it exactly; the same metres about another origin are the same walk elsewhere.
    """
    east, north = metres_a_degree(origin[0])
    across = (np.asarray(lon, np.float64) - origin[1] + 180) % 360 - 180
    return np.stack([across * east, (np.asarray(lat, np.float64) - origin[0]) * north], -1)


def from_local(place: NDArray[np.float64], origin: tuple[float, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Latitude and longitude of such metres, the other way round."""
    east, north = metres_a_degree(origin[0])
    return origin[0] + place[..., 1] / north, (origin[1] + place[..., 0] / east + 180) % 360 - 180
