"""Polygons of one's own as cells: districts, zones, census tracts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import geopandas
import numpy as np
import shapely
from numpy.typing import ArrayLike

from mobtk.contracts import Cells, Degrees, SpatialMapper
from mobtk.errors import BadInput, first_line

LARGEST = 200_000
EXAMPLE = [
    shapely.box(116.29 + 0.03 * i, 39.89 + 0.025 * j, 116.32 + 0.03 * i, 39.915 + 0.025 * j)
    for i in range(4)
    for j in range(4)
]


@final
class Polygons(SpatialMapper):
    """A cell a polygon. A point in several, or on a border, is in the first of them.

    Args:
        polygons: well-known text of each, WGS84 degrees, longitude first.
        groups: for each coarser level the number of the group that each polygon is in, finest level first.
        names: of the polygons, where they have some.
    """

    nested: ClassVar[bool] = True
    fits_box: ClassVar[bool] = True
    example_options: ClassVar[Mapping[str, Any]] = {
        "polygons": [p.wkt for p in EXAMPLE],
        "groups": [[i // 2 for i in range(16)], [i // 8 for i in range(16)]],
    }

    def __init__(self, polygons: Sequence[str], groups: Sequence[Sequence[int]] = (), names: Sequence[str] = ()) -> None:
        try:
            shapes = shapely.from_wkt(np.asarray(polygons, object))
        except (shapely.errors.GEOSException, TypeError) as error:
            raise BadInput(f"mapper 'polygons' wants polygons as well-known text: {first_line(error)}") from None
        kinds = set(shapely.get_type_id(shapes).tolist())
        if not len(shapes) or kinds - {3, 6}:
            raise BadInput("mapper 'polygons' wants one polygon at least, and nothing that is none")
        self._levels = [np.arange(len(shapes)), *(np.asarray(g, np.int64) for g in groups)]
        sizes = []
        for level in self._levels:
            if len(level) != len(shapes) or set(level.tolist()) != set(range(int(level.max()) + 1)):
                raise BadInput("groups of mapper 'polygons' number every polygon, from 0 on without gaps")
            sizes.append(int(level.max()) + 1)
        for fine, coarse in zip(self._levels, self._levels[1:], strict=False):
            if len(np.unique(np.column_stack([fine, coarse]), axis=0)) != int(fine.max()) + 1:
                raise BadInput("groups of mapper 'polygons' do not nest: one of a finer level is in two of the next")
        self.n_cells = tuple(sizes)
        self.names = list(names)
        self._wkt = list(polygons)
        self._shapes = {0: shapes}
        self._tree = shapely.STRtree(shapes)

    @classmethod
    def fit(
        cls,
        lat: ArrayLike,
        lon: ArrayLike,
        *,
        file: str | None = None,
        layer: str | None = None,
        name: str | None = None,
        levels: Sequence[str] | str = (),
        polygons: Sequence[str] | None = None,
        groups: Sequence[Sequence[int]] = (),
        **options: Any,
    ) -> "Polygons":
        """The polygons of a file, whatever the points.

        Args:
            lat, lon: not looked at.
            file: GeoPackage, GeoJSON, shapefile, GeoParquet; in any coordinate system that it names.
            layer: of a GeoPackage with several.
            name: column of their names.
            levels: columns that say which larger unit each is in, the smaller first.
            polygons, groups: given directly instead.
        """
        if polygons is not None:
            return cls(polygons, groups, **options)
        if file is None:
            raise BadInput("mapper 'polygons' wants a file of polygons: --set file=zones.gpkg")
        frame = _read(Path(file), layer)
        columns = [c for c in frame.columns if c != frame.geometry.name]
        wanted = [levels] if isinstance(levels, str) else list(levels)
        for column in [*wanted, *([name] if name is not None else [])]:
            if column not in columns:
                raise BadInput(f"{file} has no column {column!r}; it has {', '.join(columns) or 'none'}")
        units = []
        for column in wanted:
            if frame[column].isna().any():
                raise BadInput(f"{file}: column {column!r} does not say of every polygon which unit it is in")
            units.append(np.unique(frame[column].astype(str), return_inverse=True)[1].tolist())
        names = frame[name].astype(str).tolist() if name is not None else []
        return cls([shapely.to_wkt(g, rounding_precision=9) for g in frame.geometry], units, names, **options)

    def config(self) -> dict[str, Any]:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        return {"polygons": self._wkt, "groups": [level.tolist() for level in self._levels[1:]], "names": self.names}

    def encode(self, lat: ArrayLike, lon: ArrayLike) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        lat, lon = np.atleast_1d(np.asarray(lat, float)), np.atleast_1d(np.asarray(lon, float))
        cells = np.full(len(lat), len(self._wkt), np.int64)
        finite = np.flatnonzero(np.isfinite(lat) & np.isfinite(lon))
        for rows in np.array_split(finite, max(1, len(finite) // 500_000)):
            point, polygon = self._tree.query(shapely.points(lon[rows], lat[rows]), predicate="intersects")
            np.minimum.at(cells, rows[point], polygon)
        return np.where(cells == len(self._wkt), -1, cells)

    def decode(self, cells: ArrayLike, level: int = 0) -> tuple[Degrees, Degrees]:
        """A point inside of each, near its middle."""
        inside = shapely.point_on_surface(self._geometry(level))
        cells = np.asarray(cells, np.int64)
        return shapely.get_y(inside)[cells], shapely.get_x(inside)[cells]

    def coarsen(self, cells: ArrayLike, level: int) -> Cells:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        cells = np.asarray(cells, np.int64)
        return np.where(cells < 0, -1, self._levels[level][np.maximum(cells, 0)])

    def geometry(self, level: int = 0) -> geopandas.GeoDataFrame:
        """See :class:`~mobtk.contracts.SpatialMapper`."""
        shapes = self._geometry(level)
        frame = geopandas.GeoDataFrame({"cell": np.arange(len(shapes))}, geometry=shapes, crs=4326)
        return frame.assign(name=self.names) if self.names and level == 0 else frame

    def _geometry(self, level: int) -> np.ndarray:
        if level not in self._shapes:
            of = self._levels[level]
            unions = [shapely.union_all(self._shapes[0][of == i]) for i in range(self.n_cells[level])]
            self._shapes[level] = np.array(unions, object)
        return self._shapes[level]


def _read(file: Path, layer: str | None) -> geopandas.GeoDataFrame:
    """The polygons of a file, in degrees."""
    if not file.is_file():
        raise BadInput(f"{file} is not a file; mapper 'polygons' wants one of polygons")
    with file.open("rb") as start:
        if start.read(4) == b"PK\x03\x04":
            raise BadInput(f"{file} is a zip archive: unpack it, and give the file that was in it")
    try:
        if file.suffix.lower() in (".parquet", ".geoparquet"):
            frame = geopandas.read_parquet(file)
        else:
            frame = geopandas.read_file(file, engine="pyogrio", layer=layer, max_features=LARGEST + 1)
    except Exception as error:
        raise BadInput(f"{file} cannot be read: {first_line(error)}; give a GeoPackage, GeoJSON or shapefile") from None
    if not hasattr(frame, "geometry") or not len(frame):
        raise BadInput(f"{file} holds no polygons")
    if len(frame) > LARGEST:
        raise BadInput(f"{file} holds more than {LARGEST:,} polygons")
    wrong = np.flatnonzero(~frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"]) | frame.geometry.is_empty)
    if len(wrong):
        kind = frame.geometry.geom_type.iloc[wrong[0]] or "nothing"
        raise BadInput(f"{file}: row {wrong[0]} of {len(frame)} is {kind}, not a polygon (as {len(wrong)} are)")
    if frame.crs is None:
        west, south, east, north = frame.total_bounds
        if not (west >= -180 and east <= 180 and south >= -90 and north <= 90):
            raise BadInput(f"{file} does not say its coordinate system and holds no degrees; add one (a .prj, say)")
        frame = frame.set_crs(4326)
    frame = frame.to_crs(4326)
    return frame.set_geometry(frame.geometry.make_valid().buffer(0))
