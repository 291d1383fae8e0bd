"""Laws of spatial mappers."""

import json

import numpy as np

from mobtk.contracts import (
    SpatialMapper,
)
from mobtk.testing.fixtures import points
from mobtk.testing.laws.common import Law, options_have_defaults


def _mapper(kind: type[SpatialMapper]) -> SpatialMapper:
    return kind.fit(*points(), **kind.example_options)


def centres_lie_in_their_cells(kind: type[SpatialMapper]) -> None:
    """The centre of every finest cell is in that cell."""
    mapper = _mapper(kind)
    cells = np.arange(mapper.n_cells[0])
    assert (mapper.encode(*mapper.decode(cells)) == cells).all(), "the centre of some cell is in another cell"


def fitted_points_are_on_the_map(kind: type[SpatialMapper]) -> None:
    """Every point a mapper was fitted to has a cell, and ids are whole numbers from 0 to n - 1."""
    mapper = _mapper(kind)
    cells = mapper.encode(*points())
    assert cells.dtype == np.int64, f"ids are {cells.dtype}, not int64"
    assert cells.min() >= 0 and cells.max() < mapper.n_cells[0], "some point of the fit has no cell, or an id too large"


def outside_is_minus_one(kind: type[SpatialMapper]) -> None:
    """A point far away, and a missing one, are in no cell."""
    cells = _mapper(kind).encode([-45.0, np.nan, 39.94], [10.0, 116.35, np.nan])
    assert (cells == -1).all(), f"points off the map or missing got cells {cells.tolist()}, not -1"


def levels_are_nested(kind: type[SpatialMapper]) -> None:
    """Level 0 is the finest, levels do not grow, every coarser cell has a child; -1 stays -1; as declared."""
    mapper = _mapper(kind)
    finest = np.arange(mapper.n_cells[0])
    assert (mapper.coarsen(finest, 0) == finest).all(), "level 0 is not the finest"
    assert list(mapper.n_cells) == sorted(mapper.n_cells, reverse=True), "a coarser level has more cells"
    assert (len(mapper.n_cells) > 1) == mapper.nested, "the number of levels is not as declared by `nested`"
    above: np.ndarray | None = None
    for level in reversed(range(len(mapper.n_cells))):
        parents = mapper.coarsen(finest, level)
        assert set(parents.tolist()) == set(range(mapper.n_cells[level])), f"level {level} has cells without children"
        if above is not None:
            pairs = set(zip(parents.tolist(), above.tolist(), strict=True))
            assert len(pairs) == mapper.n_cells[level], f"a cell of level {level} has two parents"
        above = parents
        assert mapper.coarsen(np.array([-1]), level)[0] == -1, "outside does not stay outside"


def geometry_holds_the_centres(kind: type[SpatialMapper]) -> None:
    """At each level there is a polygon a cell, in order, in EPSG:4326; finest polygons hold their centres."""
    import shapely

    mapper = _mapper(kind)
    for level, n in enumerate(mapper.n_cells):
        frame = mapper.geometry(level)
        assert len(frame) == n, f"level {level} has {len(frame)} polygons for {n} cells"
        assert frame.crs is not None and frame.crs.to_epsg() == 4326, "polygons are not in EPSG:4326"
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    inside = shapely.intersects(mapper.geometry().geometry.to_numpy(), shapely.points(lon, lat))
    assert inside.all(), "the polygon of some cell does not hold its centre"


def rebuilt_from_its_config(kind: type[SpatialMapper]) -> None:
    """Written as JSON and built again, it gives the same cells."""
    mapper = _mapper(kind)
    again = kind(**json.loads(json.dumps(mapper.config())))
    assert again.n_cells == mapper.n_cells, "the rebuilt mapper has other cells"
    assert (again.encode(*points()) == mapper.encode(*points())).all(), "the rebuilt mapper maps otherwise"


def cells_are_repeatable(kind: type[SpatialMapper]) -> None:
    """A point has the same cell every time, alone or among others."""
    mapper, (lat, lon) = _mapper(kind), points()
    cells = mapper.encode(lat, lon)
    assert (cells == mapper.encode(lat, lon)).all(), "mapping twice gives other cells"
    assert (cells[:5] == np.concatenate([mapper.encode(lat[i : i + 1], lon[i : i + 1]) for i in range(5)])).all(), (
        "a point alone gets another cell than among others"
    )


LAWS: tuple[Law, ...] = (
    centres_lie_in_their_cells,
    fitted_points_are_on_the_map,
    outside_is_minus_one,
    levels_are_nested,
    geometry_holds_the_centres,
    rebuilt_from_its_config,
    cells_are_repeatable,
    options_have_defaults,
)
