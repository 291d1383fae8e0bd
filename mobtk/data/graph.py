"""Graphs of the nodes of a field: given, by distance, or of the nearest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.neighbors import BallTree

from mobtk.errors import BadInput, first_line
from mobtk.geo import EARTH_KM

GRAPHS = ("none", "given", "distance", "nearest")


def make_edges(
    kind: str,
    nodes: pd.DataFrame,
    *,
    given: str | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    neighbours: int = 8,
    reach: float | None = None,
) -> pd.DataFrame | None:
    """Edges ``source, target, weight`` between nodes, without those from a node to itself.

    ``given`` takes a matrix or a table as it is; but a column of distances (``distance``, ``cost`` of PEMS) becomes weights.
    ``distance`` links nodes within ``reach`` metres of the great circle, ``nearest`` each to its ``neighbours``.
    The weight of a distance is ``exp(-(d / s)^2)``, with ``s`` the standard deviation of all of them (Li et al. 2018,
    https://arxiv.org/abs/1707.01926, section 4; theirs are along roads), or their mean where that is larger, so that equal
    distances do not vanish.

    Args:
        kind: ``none``, ``given``, ``distance`` or ``nearest``.
        nodes: with ``name``, ``lat`` and ``lon``.
        given: name of one of ``arrays``, or a file: ``.npy``, or a table ``source, target`` and perhaps ``weight``, by name.
        arrays: of the file that the field came from.
        neighbours: of each node.
        reach: metres; three times the mean distance to the nearest node by default.

    Raises:
        BadInput: there is nothing to make it of, or the matrix does not fit the nodes.
    """
    if kind not in GRAPHS:
        raise BadInput(f"graph {kind!r} is not one of {', '.join(GRAPHS)}")
    if kind == "none":
        if given is not None:
            raise BadInput(f"--edges {given} wants --graph given")
        return None
    if kind == "given":
        return _given(nodes, given, arrays or {})
    if not {"lat", "lon"} <= set(nodes.columns):
        raise BadInput(f"--graph {kind} wants the positions of the nodes; give a table of them with --positions")
    n = len(nodes)
    if n < 2:
        raise BadInput(f"--graph {kind} wants two nodes at least, the field has {n}")
    if kind == "nearest" and not 1 <= neighbours < n:
        raise BadInput(f"{n} nodes have 1 to {n - 1} neighbours each, not {neighbours}")
    radians = np.radians(nodes[["lat", "lon"]].to_numpy(float))
    if (lost := np.isnan(radians).any(1)).any():
        raise BadInput(f"node {nodes['name'][int(lost.argmax())]!r} has no position, which --graph wants")
    tree, metres = BallTree(radians, metric="haversine"), EARTH_KM * 1000
    if kind == "nearest":
        far, found = tree.query(radians, k=neighbours + 1)
    else:
        near = reach or 3 * float(tree.query(radians, k=2)[0][:, 1].mean()) * metres
        found, far = tree.query_radius(radians, near / metres, return_distance=True)
    source = np.repeat(np.arange(n), [len(f) for f in found])
    target, distance = np.concatenate(found), np.concatenate(far) * metres
    other = source != target
    source, target, distance = source[other], target[other], distance[other]
    if not len(source):
        raise BadInput(f"no two nodes are within {reach:g} m of each other; give a larger --reach")
    return _sorted(source, target, _weights(distance))


def _weights(distance: NDArray[Any]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.exp(-np.square(distance / max(float(distance.std()), float(distance.mean()), 1e-9)))
    return found


def _sorted(source: NDArray[Any], target: NDArray[Any], weight: NDArray[Any]) -> pd.DataFrame:
    edges = pd.DataFrame({"source": source.astype(np.int32), "target": target.astype(np.int32)})
    edges["weight"] = weight.astype(np.float32)
    return edges.sort_values(["source", "target"], ignore_index=True)


def _given(nodes: pd.DataFrame, given: str | None, arrays: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    n = len(nodes)
    square = [name for name, a in arrays.items() if a.ndim == 2 and a.shape[0] == a.shape[1] and a.shape[0] != 1]
    if given is None and len(square) == 1:
        given = square[0]
    if given is None:
        have = f"; the source has {', '.join(square)}" if square else ""
        raise BadInput(f"--graph given wants --edges: the name of a matrix of the source, or a file{have}")
    if given in arrays:
        return _of_matrix(arrays[given], n, given)
    try:
        if given.endswith(".npy"):
            return _of_matrix(np.load(given, allow_pickle=False), n, given)
        table = pd.read_parquet(given) if given.endswith(".parquet") else pd.read_csv(given)
    except (OSError, ValueError, pa.ArrowException) as error:
        hint = f" (the source has the matrices {', '.join(square)})" if square and not Path(given).exists() else ""
        raise BadInput(f"--edges {given} cannot be read: {first_line(error)}{hint}") from None
    table = table.rename(columns={"from": "source", "to": "target", "cost": "distance"})
    if not {"source", "target"} <= set(table.columns):
        raise BadInput(f"{given} wants columns source and target; it has {', '.join(map(str, table.columns))}")
    number = {str(name): i for i, name in enumerate(nodes["name"])}
    ends = [table[end].astype(str).map(number) for end in ("source", "target")]
    for end, known in zip(("source", "target"), ends, strict=True):
        if known.isna().any():
            raise BadInput(f"{given}: {end} {table[end][known.isna()].iloc[0]!r} is no node of the field")
    weight = np.ones(len(table))
    if column := next((name for name in ("weight", "distance") if name in table), None):
        try:
            weight = table[column].to_numpy(float)
        except ValueError as error:
            raise BadInput(f"{given}: column {column!r} holds no numbers: {first_line(error)}") from None
        _finite(weight, given)
        weight = _weights(weight) if column == "distance" else weight
    source, target = (known.to_numpy(np.int64) for known in ends)
    other = source != target
    return _sorted(source[other], target[other], weight[other])


def _of_matrix(matrix: NDArray[Any], n: int, given: str) -> pd.DataFrame:
    if matrix.shape != (n, n):
        raise BadInput(f"graph {given} is of {' x '.join(map(str, matrix.shape))} nodes, the field has {n}")
    _finite(matrix, given)
    source, target = np.nonzero(matrix - np.diag(np.diag(matrix)))
    return _sorted(source, target, matrix[source, target])


def _finite(weights: NDArray[Any], given: str) -> None:
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise BadInput(f"graph {given} has weights that are missing, infinite or negative; give numbers of 0 or more")
