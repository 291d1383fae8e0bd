"""Places given as points: shops, stops, antennas. The cell of a point is the place nearest to it."""

from typing import Any, ClassVar, final

import geopandas
import numpy as np
import shapely
from numpy.typing import ArrayLike
from sklearn.neighbors import BallTree

from mobtk.contracts import Cells, Degrees, SpatialMapper
from mobtk.errors import BadInput
from mobtk.geo import EARTH_KM


@final
class Places(SpatialMapper):
    """One cell a distinct position, in ascending order of latitude, then longitude. There are no coarser levels.

    Places on exactly the same spot are one cell: positions are all that it knows of them.

    Args:
        lat: latitudes of the places, degrees.
        lon: their longitudes.
        reach: metres from its nearest place beyond which a point is outside.
    """

    nested: ClassVar[bool] = False

    def __init__(self, lat: ArrayLike, lon: ArrayLike, *, reach: float = 1000.0) -> None:
        places = np.unique(np.column_stack([np.asarray(lat, float), np.asarray(lon, float)]), axis=0)
        if not len(places) or not np.isfinite(places).all():
            raise BadInput("mapper 'places' wants the coordinates of at least one place, without gaps")
        self._places, self.reach = places, float(reach)
        self.n_cells = (len(places),)
        self._tree = BallTree(np.radians(places), metric="haversine")

    @classmethod
    def fit(cls, lat: ArrayLike, lon: ArrayLike, **options: Any) -> "Places":
        """Every distinct position is a place."""
        return cls(np.asarray(lat, float), np.asarray(lon, float), **options)

    def config(self) -> dict[str, Any]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        return {"lat": self._places[:, 0].tolist(), "lon": self._places[:, 1].tolist(), "reach": self.reach}

    def encode(self, lat: ArrayLike, lon: ArrayLike) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        points = np.column_stack([np.atleast_1d(np.asarray(lat, float)), np.atleast_1d(np.asarray(lon, float))])
        cells = np.full(len(points), -1, np.int64)
        finite = np.isfinite(points).all(axis=1)
        if finite.any():
            distinct, index = np.unique(points[finite], axis=0, return_inverse=True)
            distance, nearest = self._tree.query(np.radians(distinct))
            cell = np.where(distance[:, 0] * EARTH_KM * 1000 <= self.reach, nearest[:, 0], -1)
            cells[finite] = cell[index.ravel()]
        return cells

    def decode(self, cells: ArrayLike, level: int = 0) -> tuple[Degrees, Degrees]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        cells = np.asarray(cells, np.int64)
        return self._places[cells, 0], self._places[cells, 1]

    def coarsen(self, cells: ArrayLike, level: int) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        if level:
            raise IndexError("mapper 'places' has one level only")
        return np.asarray(cells, np.int64)

    def geometry(self, level: int = 0) -> geopandas.GeoDataFrame:
        """The area nearest to each place (its Voronoi polygon), within the box of all places."""
        points = shapely.points(self._places[:, 1], self._places[:, 0])
        box = shapely.buffer(shapely.envelope(shapely.multipoints(points)), 0.01)
        if len(points) == 1:
            return geopandas.GeoDataFrame({"cell": [0]}, geometry=[box], crs=4326)
        areas = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(points), extend_to=box))
        order = shapely.STRtree(areas).query(points, predicate="intersects")
        cell_of_area = np.zeros(len(points), np.int64)
        cell_of_area[order[0]] = order[1]
        return geopandas.GeoDataFrame(
            {"cell": np.arange(len(points))}, geometry=shapely.intersection(areas[cell_of_area], box), crs=4326
        )
