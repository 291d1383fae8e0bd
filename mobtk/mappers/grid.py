"""Square cells of any size in metres, in rows from the south and columns from the west."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, final

import geopandas
import numpy as np
import pyproj
import shapely
from numpy.typing import ArrayLike

from mobtk.contracts import Cells, Degrees, SpatialMapper
from mobtk.errors import BadInput
from mobtk.mappers.projection import FastProjection

LARGEST = 4_000_000
MANY = 50_000
"""Points from which on a fast projection is worth its preparation."""


@final
class Grid(SpatialMapper):
    """A grid of square cells in projected metres; each level doubles the side of the one below.

    Finest ids are row-major, ``columns * row + column``. A level of ``r`` rows is covered by ``ceil(r / 2)`` rows
    of the next, so that 30 rows become 15, 8 and 4, as in M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314).

    Args:
        crs: a projected coordinate system in metres, such as ``EPSG:32650``.
        origin: its coordinates of the south-west corner, metres.
        shape: rows and columns of the finest level.
        size: side of a finest cell, metres.
        levels: how many levels there are.
    """

    nested: ClassVar[bool] = True
    fits_box: ClassVar[bool] = True

    def __init__(
        self,
        crs: str,
        origin: Sequence[float],
        shape: Sequence[int],
        *,
        size: float = 1000.0,
        levels: int = 4,
    ) -> None:
        if not size > 0 or levels < 1:
            raise BadInput(f"a grid needs a size above 0 m and at least one level, not size={size}, levels={levels}")
        self.crs, self.size, self.levels = crs, float(size), levels
        self.origin = (float(origin[0]), float(origin[1]))
        self.shapes = [(int(shape[0]), int(shape[1]))]
        for _ in range(levels - 1):
            rows, columns = self.shapes[-1]
            self.shapes.append((math.ceil(rows / 2), math.ceil(columns / 2)))
        self.n_cells = tuple(rows * columns for rows, columns in self.shapes)
        self._to_metres = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        self._to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        self._projection: FastProjection | None = None

    @classmethod
    def fit(
        cls,
        lat: ArrayLike,
        lon: ArrayLike,
        *,
        size: float = 1000.0,
        levels: int = 4,
        crs: str | None = None,
        **options: Any,
    ) -> "Grid":
        """The grid over the bounding box of the points, in the UTM zone of its centre, on whole multiples of ``size``."""
        if not size > 0:
            raise BadInput(f"a grid needs a size above 0 m, not size={size}")
        lat, lon = np.asarray(lat, float), np.asarray(lon, float)
        if crs is None:
            middle = (lat.min() + lat.max()) / 2, (lon.min() + lon.max()) / 2
            if not -80 <= middle[0] <= 84:
                raise BadInput("no UTM zone covers these points; name a --set crs=..., such as EPSG:3995, or use h3")
            # the zone by its number: asking PROJ's database for it takes as long as reading a million points
            crs = f"EPSG:{(32600 if middle[0] >= 0 else 32700) + int((middle[1] + 180) // 6) % 60 + 1}"
        x, y = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lon, lat)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise BadInput(f"{crs} does not reach all of these points; leave some out with --bounds, or use h3")
        west, south = math.floor(x.min() / size) * size, math.floor(y.min() / size) * size
        rows, columns = int((y.max() - south) // size) + 1, int((x.max() - west) // size) + 1
        if rows * columns > LARGEST:
            south_, north_ = np.quantile(lat, [0.005, 0.995])
            west_, east_ = np.quantile(lon, [0.005, 0.995])
            raise BadInput(
                f"a grid of {size:g} m over these points has {rows} x {columns} cells, more than {LARGEST:,}; use a "
                f"larger size, or --bounds={south_:.4f},{west_:.4f},{north_:.4f},{east_:.4f} for 99 % of them"
            )
        return cls(crs, (west, south), (rows, columns), size=size, levels=levels, **options)

    def config(self) -> dict[str, Any]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        return {
            "crs": self.crs,
            "origin": list(self.origin),
            "shape": list(self.shapes[0]),
            "size": self.size,
            "levels": self.levels,
        }

    def encode(self, lat: ArrayLike, lon: ArrayLike) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        lat, lon = np.atleast_1d(np.asarray(lat, float)), np.atleast_1d(np.asarray(lon, float))
        if len(lat) < MANY or (fast := self._fast()).exact:
            return self._cells(*self._to_metres.transform(lon, lat))
        cells, doubtful = fast.cells(lat, lon, self.origin, self.size, self.shapes[0])
        unsure = np.flatnonzero(doubtful)
        cells[unsure] = self._cells(*self._to_metres.transform(lon[unsure], lat[unsure]))
        return cells

    def _cells(self, x: ArrayLike, y: ArrayLike) -> Cells:
        """Cells of projected points."""
        with np.errstate(invalid="ignore"):
            column = np.floor((np.atleast_1d(x) - self.origin[0]) / self.size)
            row = np.floor((np.atleast_1d(y) - self.origin[1]) / self.size)
            rows, columns = self.shapes[0]
            inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        return np.where(inside, np.where(inside, row, 0) * columns + np.where(inside, column, 0), -1).astype(np.int64)

    def _fast(self) -> FastProjection:
        """The projection over the area of the grid, for many points."""
        if self._projection is None:
            rows, columns = self.shapes[0]
            edge = np.linspace(0, 1, 17)
            x, y = (a.ravel() for a in np.meshgrid(edge * columns * self.size, edge * rows * self.size))
            lon, lat = self._to_degrees.transform(self.origin[0] + x, self.origin[1] + y)
            margin = 1e-3
            box = (lat.min() - margin, lon.min() - margin, lat.max() + margin, lon.max() + margin)
            self._projection = FastProjection(self._to_metres, box)
        return self._projection

    def decode(self, cells: ArrayLike, level: int = 0) -> tuple[Degrees, Degrees]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        row, column = np.divmod(np.asarray(cells, np.int64), self.shapes[level][1])
        side = self.size * 2**level
        lon, lat = self._to_degrees.transform(self.origin[0] + (column + 0.5) * side, self.origin[1] + (row + 0.5) * side)
        return np.asarray(lat, float), np.asarray(lon, float)

    def coarsen(self, cells: ArrayLike, level: int) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        cells = np.asarray(cells, np.int64)
        row, column = np.divmod(cells, self.shapes[0][1])
        return np.where(cells < 0, -1, (row >> level) * self.shapes[level][1] + (column >> level))

    def geometry(self, level: int = 0) -> geopandas.GeoDataFrame:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        row, column = np.divmod(np.arange(self.n_cells[level]), self.shapes[level][1])
        side = self.size * 2**level
        west, south = self.origin[0] + column * side, self.origin[1] + row * side
        boxes = shapely.box(west, south, west + side, south + side)
        return geopandas.GeoDataFrame({"cell": np.arange(len(boxes))}, geometry=boxes, crs=self.crs).to_crs(4326)
