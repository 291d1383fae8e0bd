"""Uber's hexagonal cells (https://h3geo.org): no projection, levels are parents."""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import geopandas
import numpy as np
import shapely
from h3.api import basic_int as h3
from numpy.typing import ArrayLike

from mobtk.contracts import Cells, Degrees, SpatialMapper
from mobtk.errors import BadInput

LARGEST = 2_000_000


@final
class H3(SpatialMapper):
    """The H3 cells that cover a box; level ``l`` holds their parents ``l`` resolutions up.

    Ids are ranks of the H3 indices in ascending order, at every level. Levels have about a seventh of the cells of
    the one below; a parent does not cover its children exactly, as H3 defines it.

    Args:
        bounds: south, west, north and east of the box, degrees.
        resolution: 0 (4.4 million km2 a cell) to 15 (0.9 m2); 8 is 0.74 km2.
        levels: how many levels there are, at most ``resolution + 1``.
    """

    nested: ClassVar[bool] = True
    fits_box: ClassVar[bool] = True

    def __init__(self, bounds: Sequence[float], *, resolution: int = 8, levels: int = 4) -> None:
        if not 0 <= resolution <= 15 or not 1 <= levels <= resolution + 1:
            raise BadInput(
                f"h3 wants a resolution of 0 to 15 and at most resolution + 1 levels, not resolution={resolution}, "
                f"levels={levels}"
            )
        south, west, north, east = self.bounds = tuple(float(b) for b in bounds)
        self.resolution, self.levels = resolution, levels
        middle = h3.latlng_to_cell((south + north) / 2, (west + east) / 2, resolution)
        box_km2 = (north - south) * 111.2 * (east - west) * 111.2 * np.cos(np.radians((south + north) / 2))
        if box_km2 / h3.cell_area(middle) > LARGEST:
            raise BadInput(
                f"h3 at resolution {resolution} has about {box_km2 / h3.cell_area(middle):,.0f} cells in this box, "
                f"more than {LARGEST:,}; use a lower resolution or a smaller --bounds"
            )
        corners = h3.LatLngPoly([(south, west), (south, east), (north, east), (north, west)])
        inside = h3.h3shape_to_cells(corners, resolution)
        # cells are listed by their centre: a ring more, so that points at the border have one too
        covering = {near for cell in [*inside, middle] for near in h3.grid_disk(cell, 1)}
        self._ids = [np.array(sorted(covering), dtype=np.uint64)]
        self._parents = [np.arange(len(self._ids[0]))]
        for level in range(1, levels):
            parents = np.array([h3.cell_to_parent(c, resolution - level) for c in self._ids[0].tolist()], np.uint64)
            ids, index = np.unique(parents, return_inverse=True)
            self._ids.append(ids)
            self._parents.append(index)
        self.n_cells = tuple(len(ids) for ids in self._ids)

    @classmethod
    def fit(cls, lat: ArrayLike, lon: ArrayLike, **options: Any) -> "H3":
        """The cells over the bounding box of the points."""
        lat, lon = np.asarray(lat, float), np.asarray(lon, float)
        return cls((lat.min(), lon.min(), lat.max(), lon.max()), **options)

    def config(self) -> dict[str, Any]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        return {"bounds": list(self.bounds), "resolution": self.resolution, "levels": self.levels}

    def encode(self, lat: ArrayLike, lon: ArrayLike) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        lat, lon = np.atleast_1d(np.asarray(lat, float)), np.atleast_1d(np.asarray(lon, float))
        finite = np.isfinite(lat) & np.isfinite(lon)
        resolution, to_cell = self.resolution, h3.latlng_to_cell
        found = np.zeros(len(lat), np.uint64)
        found[finite] = [to_cell(a, o, resolution) for a, o in zip(lat[finite].tolist(), lon[finite].tolist(), strict=True)]
        rank = np.minimum(np.searchsorted(self._ids[0], found), self.n_cells[0] - 1)
        return np.where(self._ids[0][rank] == found, rank, -1).astype(np.int64)

    def decode(self, cells: ArrayLike, level: int = 0) -> tuple[Degrees, Degrees]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        cells = np.asarray(cells, np.int64)
        distinct, index = np.unique(cells, return_inverse=True)
        centres = np.array([h3.cell_to_latlng(c) for c in self._ids[level][distinct].tolist()]).reshape(-1, 2)
        return centres[index.reshape(cells.shape), 0], centres[index.reshape(cells.shape), 1]

    def coarsen(self, cells: ArrayLike, level: int) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        cells = np.asarray(cells, np.int64)
        return np.where(cells < 0, -1, self._parents[level][np.maximum(cells, 0)])

    def geometry(self, level: int = 0) -> geopandas.GeoDataFrame:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        hexagons = [shapely.Polygon([(lon, lat) for lat, lon in h3.cell_to_boundary(c)]) for c in self._ids[level].tolist()]
        return geopandas.GeoDataFrame({"cell": np.arange(len(hexagons))}, geometry=hexagons, crs=4326)
