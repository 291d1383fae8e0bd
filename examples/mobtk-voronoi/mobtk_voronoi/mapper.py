"""Voronoi cells: each place belongs to the nearest of some centres, which lie where the data are dense."""

from typing import ClassVar, final

import geopandas
import numpy as np
import shapely
from scipy.spatial import cKDTree
from sklearn.cluster import MiniBatchKMeans

from mobtk.contracts import SpatialMapper
from mobtk.errors import BadInput

METRES = 111_320.0
"""Of a degree of latitude."""


@final
class Voronoi(SpatialMapper):
    """Centres are found by k-means over the points (Sculley 2010, https://doi.org/10.1145/1772690.1772862), in metres
    east and north of the middle; those of a coarser level by k-means over the centres of the level below, whose cells
    become their children.

    Outside is what lies beyond the box of the points.

    Args:
        lat: latitudes of the finest centres.
        lon: their longitudes.
        box: south, west, north and east of the points, degrees.
        parents: for each coarser level, the cell there of each finest cell.
        centres: for each coarser level, latitudes and longitudes of its centres.
    """

    nested: ClassVar[bool] = True

    def __init__(self, lat, lon, box, parents, centres):
        self.box = tuple(box)
        self.centres = [np.array([lat, lon]).T, *(np.asarray(c, float) for c in centres)]
        self.parents = [np.arange(len(lat)), *(np.asarray(p, np.int64) for p in parents)]
        self.n_cells = tuple(len(c) for c in self.centres)
        self._nearest = cKDTree(_metres(self.centres[0], self.box))

    @classmethod
    def fit(cls, lat, lon, *, cells: int = 256, levels: int = 3, shrink: int = 4, seed: int = 0):
        """The centres of these points.

        Args:
            lat: degrees.
            lon: degrees.
            cells: how many there are, or fewer where there are not so many different points.
            levels: how many levels.
            shrink: by how much the number of cells falls from level to level.
            seed: of k-means.
        """
        points = np.unique(np.stack([np.asarray(lat, float), np.asarray(lon, float)], 1), axis=0)
        if cells < 2 or levels < 2 or shrink < 2 or cells < shrink ** (levels - 1):
            raise BadInput(
                "voronoi wants two levels or more, each with half of the cells below it or fewer, and one cell in the "
                f"last at least: not cells={cells}, levels={levels}, shrink={shrink}"
            )
        box = (*points.min(0), *points.max(0))
        finest, _ = _clusters(points, min(cells, len(points)), box, seed)
        centres, parents, below = [], [], np.arange(len(finest))
        level = finest
        for _ in range(levels - 1):
            level, of = _clusters(level, max(1, len(level) // shrink), box, seed)
            below = of[below]
            centres.append(level.tolist())
            parents.append(below.tolist())
        return cls(finest[:, 0].tolist(), finest[:, 1].tolist(), [float(x) for x in box], parents, centres)

    def config(self):
        """Plain data from which it is built again."""
        lat, lon = self.centres[0].T.tolist()
        coarser = {"parents": [p.tolist() for p in self.parents[1:]], "centres": [c.tolist() for c in self.centres[1:]]}
        return {"lat": lat, "lon": lon, "box": list(self.box), **coarser}

    def encode(self, lat, lon):
        """The cell with the nearest centre; -1 beyond the box."""
        points = np.stack([np.asarray(lat, float), np.asarray(lon, float)], -1)
        south, west, north, east = self.box
        inside = (points >= (south, west)).all(-1) & (points <= (north, east)).all(-1)  # NaN is not
        cells = np.full(len(points), -1)
        if inside.any():
            cells[inside] = self._nearest.query(_metres(points[inside], self.box))[1]
        return cells

    def decode(self, cells, level=0):
        """Centres of cells."""
        lat, lon = self.centres[level][np.asarray(cells)].T
        return lat, lon

    def coarsen(self, cells, level):
        """The cells of a level that hold finest cells; -1 stays -1."""
        cells = np.asarray(cells, np.int64)
        return np.where(cells < 0, -1, self.parents[level][cells])

    def geometry(self, level=0):
        """Polygons of the finest cells, or all of those with the same parent together."""
        south, west, north, east = self.box
        box = shapely.box(*_metres(np.array([[south, west]]), self.box)[0], *_metres(np.array([[north, east]]), self.box)[0])
        centres = shapely.points(_metres(self.centres[0], self.box))
        if len(centres) == 1:
            cells = np.array([box])
        else:
            found = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(centres), extend_to=box))
            own, of = shapely.STRtree(found).query(centres, predicate="within")
            cells = np.empty(len(centres), object)
            cells[own] = shapely.intersection(found[of], box)
        scale = METRES * np.cos(np.radians((south + north) / 2))
        degrees = shapely.transform(cells, lambda xy: xy / (scale, METRES))
        frame = geopandas.GeoDataFrame({"parent": self.parents[level]}, geometry=degrees, crs="EPSG:4326")
        return frame if level == 0 else frame.dissolve("parent").sort_index().reset_index(drop=True)


def _metres(points, box):
    """Metres east and north, from degrees of latitude and longitude."""
    scale = METRES * np.cos(np.radians((box[0] + box[2]) / 2))
    return points[:, ::-1] * (scale, METRES)


def _clusters(points, n, box, seed):
    """Centres of ``n`` clusters or fewer, and to which each point belongs: the nearest centre."""
    metres = _metres(points, box)
    labels = MiniBatchKMeans(n, random_state=seed, n_init=3, batch_size=4096).fit(metres).labels_
    kept, labels = np.unique(labels, return_inverse=True)  # some clusters may be empty
    centres = np.stack([np.bincount(labels, points[:, axis]) / np.bincount(labels) for axis in (0, 1)], 1)
    while True:  # the nearest of the means, so that no centre lies in another's cell; and each with a point at least
        labels = cKDTree(_metres(centres, box)).query(metres)[1]
        kept, labels = np.unique(labels, return_inverse=True)
        if len(kept) == len(centres):
            return centres, labels
        centres = centres[kept]
