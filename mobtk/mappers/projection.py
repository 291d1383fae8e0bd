"""A projection as polynomials over a small area: several times faster than PROJ, and as exact as is asked for."""

import numpy as np
import pyproj
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from mobtk import kernels

DEGREES = (3, 4, 5, 6, 8, 10, 12)


class FastProjection:
    """Metres of points by interpolation at Chebyshev nodes.

    Args:
        to_metres: the projection, longitude and latitude first.
        box: south, west, north and east of the area, degrees.
        error: metres that the interpolation may be off, found on a lattice between its nodes.

    Attributes:
        exact: whether no polynomial was good enough; then :meth:`cells` must not be used.
    """

    def __init__(self, to_metres: pyproj.Transformer, box: tuple[float, float, float, float], error: float = 1e-4) -> None:
        self.south, self.west, self.north, self.east = box
        test_lon, test_lat = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, 53), np.linspace(-1, 1, 47)))
        want = np.array(to_metres.transform(*self._degrees(test_lon, test_lat)))
        self.exact = True
        for degree in DEGREES if np.isfinite(want).all() else ():
            nodes = chebyshev.chebpts1(degree + 1)
            lon, lat = (a.ravel() for a in np.meshgrid(nodes, nodes))
            x, y = to_metres.transform(*self._degrees(lon, lat))
            basis = chebyshev.chebvander2d(lon, lat, [degree, degree])
            # as plain powers, which are cheaper, and harmless on -1..1 at these degrees
            power = [_powers(np.linalg.solve(basis, v).reshape(degree + 1, -1)) for v in (x, y)]
            self._x, self._y = power
            got = kernels.evaluate_polynomials(self._x, self._y, *self._degrees(test_lon, test_lat), *box)
            if np.abs(np.array(got) - want).max() < error:
                self.exact = False
                break

    def _degrees(self, lon: NDArray, lat: NDArray) -> tuple[NDArray, NDArray]:
        """From -1..1 to the area."""
        return (
            self.west + (lon + 1) / 2 * (self.east - self.west),
            self.south + (lat + 1) / 2 * (self.north - self.south),
        )

    def cells(
        self,
        lat: NDArray[np.float64],
        lon: NDArray[np.float64],
        origin: tuple[float, float],
        size: float,
        shape: tuple[int, int],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row-major cells of points, -1 outside; and which lie within a millimetre of a border, or outside the area."""
        box = (self.south, self.west, self.north, self.east)
        return kernels.cells_by_polynomials(self._x, self._y, lon, lat, *box, *origin, size, *shape)


def _powers(coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chebyshev coefficients of lon and lat as those of plain powers."""
    to = np.array([np.pad(chebyshev.cheb2poly(row), (0, len(coefficients) - i - 1)) for i, row in enumerate(
        [np.eye(len(coefficients))[i, : i + 1] for i in range(len(coefficients))]
    )])  # fmt: skip
    return np.ascontiguousarray(to.T @ coefficients @ to)
