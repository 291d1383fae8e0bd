"""Datasets as other programs read them: points, lines, stays, flows between cells."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from mobtk.data.dataset import Dataset
from mobtk.data.moments import in_zone
from mobtk.errors import BadInput
from mobtk.storage import PathLike, check_new_file, new_file

LAYERS = {
    "points": "a row a step: where each person is at each moment",
    "lines": "a row a sequence: the way from cell to cell",
    "stays": "a row a stay: successive steps in one cell",
    "od": "a row a pair of cells: how many moves there are from one to the other",
}
"""What :func:`layer` makes."""
DRIVERS = (".parquet", ".gpkg", ".geojson", ".csv")


def layer(dataset: Dataset, what: str = "points", level: int = 0) -> geopandas.GeoDataFrame:
    """A dataset with geometry, EPSG:4326; positions are centres of cells, times local.

    Args:
        dataset: any.
        what: one of :data:`LAYERS`.
        level: of the cells; 0 is the finest.

    Raises:
        BadInput: there is no such layer or level.
    """
    if what not in LAYERS:
        raise BadInput(f"a dataset is exported as {', '.join(LAYERS)}, not {what!r}")
    mapper = dataset.mapper()
    if not 0 <= level < len(mapper.n_cells):
        raise BadInput(f"mapper {dataset.mapper_spec['name']} has levels 0 to {len(mapper.n_cells) - 1}, not {level}")
    lat, lon = mapper.decode(np.arange(mapper.n_cells[level]), level)
    cells = mapper.coarsen(dataset.cells.astype(np.int64), level)
    return {"points": _points, "lines": _lines, "stays": _stays, "od": _flows}[what](dataset, cells, lat, lon)


def export(dataset: Dataset, out: PathLike, *, what: str = "points", level: int = 0, replace: bool = False) -> int:
    """Write a layer as GeoParquet, GeoPackage, GeoJSON or CSV, by the ending of the name. Returns its rows."""
    path = Path(out)
    if path.suffix not in DRIVERS:
        raise BadInput(f"{path} ends in none of {', '.join(DRIVERS)}")
    check_new_file(path, replace)
    frame = _with_offset(layer(dataset, what, level), dataset)
    with new_file(path) as draft:
        if path.suffix == ".parquet":
            frame.to_parquet(draft)
        elif path.suffix == ".csv":
            plain = pd.DataFrame(frame.drop(columns="geometry"))
            if what != "od":
                plain["wkt"] = shapely.to_wkt(frame.geometry.to_numpy(), rounding_precision=7)
            plain.to_csv(draft, index=False)
        else:
            draft.unlink()  # these drivers refuse a file that is there, and go by its ending
            ending = draft.with_name(draft.name + path.suffix)
            try:
                frame.to_file(
                    ending, driver={".gpkg": "GPKG", ".geojson": "GeoJSON"}[path.suffix], layer=what, engine="pyogrio"
                )
                ending.replace(draft)
            finally:
                ending.unlink(missing_ok=True)
    return len(frame)


def _with_offset(frame: geopandas.GeoDataFrame, dataset: Dataset) -> geopandas.GeoDataFrame:
    """Local times with their offset, where the time zone of the dataset is known, so that others read them right."""
    zone = dataset.info.settings.get("timezone")
    for name in ("time", "start"):
        if zone and name in frame:
            frame[name] = in_zone(pd.DatetimeIndex(frame[name]), zone)
    return frame


def collection(dataset: Dataset) -> Any:
    """A MovingPandas ``TrajectoryCollection``, a trajectory a sequence.

    Raises:
        BadInput: MovingPandas is not installed.
    """
    try:
        import movingpandas
    except ImportError:
        raise BadInput('MovingPandas is not installed; try: pip install "mobtk[movingpandas]"') from None
    points = layer(dataset, "points")
    points = points.set_index("time")
    return movingpandas.TrajectoryCollection(points, traj_id_col="sequence")


def _points(dataset: Dataset, cells: NDArray[np.int64], lat: NDArray, lon: NDArray) -> geopandas.GeoDataFrame:
    rows, steps = cells.shape
    row = np.repeat(np.arange(rows), steps)
    cell = cells.ravel()
    return geopandas.GeoDataFrame(
        {
            "sequence": row,
            "user": dataset.users[row],
            "time": dataset.moments().ravel().astype("datetime64[s]"),
            "cell": cell,
            "lat": lat[cell],
            "lon": lon[cell],
        },
        geometry=shapely.points(lon[cell], lat[cell]),
        crs=4326,
    )


def _lines(dataset: Dataset, cells: NDArray[np.int64], lat: NDArray, lon: NDArray) -> geopandas.GeoDataFrame:
    moves = np.ones(cells.shape, bool)
    moves[:, 1:] = cells[:, 1:] != cells[:, :-1]
    moves[:, -1] |= moves.sum(1) == 1  # who never moves has a line of two ends, of length 0
    row, step = np.nonzero(moves)
    cell = cells[row, step]
    lines = shapely.linestrings(np.column_stack([lon[cell], lat[cell]]), indices=row)
    split = dataset.column("split")
    return geopandas.GeoDataFrame(
        {
            "sequence": np.arange(len(cells)),
            "user": dataset.users,
            "start": dataset.starts,
            "split": split,
            "moves": (cells[:, 1:] != cells[:, :-1]).sum(1),
        },
        geometry=lines,
        crs=4326,
    )


def _stays(dataset: Dataset, cells: NDArray[np.int64], lat: NDArray, lon: NDArray) -> geopandas.GeoDataFrame:
    fresh = np.ones(cells.shape, bool)
    fresh[:, 1:] = cells[:, 1:] != cells[:, :-1]
    row, step = np.nonzero(fresh)
    length = np.diff(np.append(row * cells.shape[1] + step, cells.size))
    moments = dataset.moments()
    cell = cells[row, step]
    return geopandas.GeoDataFrame(
        {
            "sequence": row,
            "user": dataset.users[row],
            "start": moments[row, step].astype("datetime64[s]"),
            "steps": length,
            "cell": cell,
            "lat": lat[cell],
            "lon": lon[cell],
        },
        geometry=shapely.points(lon[cell], lat[cell]),
        crs=4326,
    )


def _flows(dataset: Dataset, cells: NDArray[np.int64], lat: NDArray, lon: NDArray) -> geopandas.GeoDataFrame:
    origin, destination = cells[:, :-1].ravel(), cells[:, 1:].ravel()
    moved = origin != destination
    pairs, count = np.unique(np.column_stack([origin, destination])[moved], axis=0, return_counts=True)
    a, b = pairs[:, 0], pairs[:, 1]
    ends = np.stack([np.column_stack([lon[a], lat[a]]), np.column_stack([lon[b], lat[b]])], axis=1)
    return geopandas.GeoDataFrame(
        {"origin": a, "destination": b, "moves": count, "origin_lat": lat[a], "origin_lon": lon[a],
         "destination_lat": lat[b], "destination_lon": lon[b]},
        geometry=shapely.linestrings(ends) if len(ends) else [],
        crs=4326,
    )  # fmt: skip
