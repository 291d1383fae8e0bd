import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobtk.errors import BadInput
from mobtk.mappers.embedding import cell_embedding
from mobtk.mappers.grid import Grid
from mobtk.mappers.h3 import H3
from mobtk.mappers.places import Places

BEIJING = Grid("EPSG:32650", (430_000.0, 4_405_000.0), (30, 30))


def test_thirty_kilometres_give_30_15_8_and_4():
    assert BEIJING.n_cells == (900, 225, 64, 16)


def test_parents_as_mstar_defines_them():
    ids = np.arange(900)
    row, column = np.divmod(ids, 30)
    assert (BEIJING.coarsen(ids, 1) == row // 2 * 15 + column // 2).all()
    assert (BEIJING.coarsen(ids, 2) == row // 4 * 8 + column // 4).all()
    assert (BEIJING.coarsen(ids, 3) == row // 8 * 4 + column // 8).all()


def test_ids_are_rows_from_the_south_and_columns_from_the_west():
    lat, lon = BEIJING.decode([0, 1, 30])
    assert lon[1] > lon[0]
    assert lat[2] > lat[0]
    assert abs((lat[2] - lat[0]) * 111_200 - 1000) < 20, "a kilometre apart"


@given(st.floats(0.001, 29.999), st.floats(0.001, 29.999))
def test_every_point_of_the_square_is_in_the_cell_of_its_kilometre(x, y):
    lon, lat = BEIJING._to_degrees.transform(430_000 + x * 1000, 4_405_000 + y * 1000)
    cell = BEIJING.encode([lat], [lon])[0]
    near = {int(b) * 30 + int(a) for a in (x - 1e-4, x + 1e-4) for b in (y - 1e-4, y + 1e-4) if 0 <= a < 30 and 0 <= b < 30}
    assert cell in near


@pytest.mark.parametrize("size", [250.0, 1000.0, 3333.0])
def test_grid_fits_any_size_in_metres(size):
    rng = np.random.default_rng(0)
    lat, lon = 39.9 + 0.1 * rng.random(500), 116.3 + 0.1 * rng.random(500)
    grid = Grid.fit(lat, lon, size=size)
    cells = grid.encode(lat, lon)
    assert cells.min() >= 0
    a, b = grid.decode(cells)
    metres = np.hypot((a - lat) * 111_200, (b - lon) * 111_200 * np.cos(np.radians(lat)))
    assert metres.max() <= size * 0.5**0.5 * 1.01, "no point is farther from its cell's centre than a corner"


def test_one_point_makes_a_map_of_one_cell():
    assert Grid.fit([52.0], [13.0]).n_cells == (1, 1, 1, 1)


def test_too_many_cells_names_the_bounds_that_would_do():
    rng = np.random.default_rng(0)
    lat, lon = np.append(rng.normal(39.9, 0.05, 1000), 10.0), np.append(rng.normal(116.3, 0.05, 1000), 20.0)
    with pytest.raises(BadInput, match=r"more than .*--bounds=39\.\d+,116\.\d+,40\.\d+,116\.\d+ for 99 %"):
        Grid.fit(lat, lon, size=100)


def test_h3_ids_are_those_of_the_library():
    import h3

    mapper = H3((39.9, 116.3, 40.0, 116.4), resolution=8)
    lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
    for i in (0, 7, mapper.n_cells[0] - 1):
        cell = h3.latlng_to_cell(lat[i], lon[i], 8)
        assert h3.str_to_int(cell) == mapper._ids[0][i]
        assert h3.str_to_int(h3.cell_to_parent(cell, 6)) == mapper._ids[2][mapper.coarsen([i], 2)[0]]


def test_h3_covers_the_whole_box():
    mapper = H3((39.9, 116.3, 40.0, 116.4), resolution=7)
    lat, lon = (x.ravel() for x in np.meshgrid(np.linspace(39.9, 40.0, 60), np.linspace(116.3, 116.4, 60)))
    assert (mapper.encode(lat, lon) >= 0).all()


@pytest.mark.parametrize("options", [{"resolution": 16}, {"resolution": -1}, {"resolution": 2, "levels": 4}])
def test_h3_refuses_levels_that_do_not_exist(options):
    with pytest.raises(BadInput, match="resolution of 0 to 15"):
        H3((39.9, 116.3, 40.0, 116.4), **options)


def test_places_are_the_nearest_within_reach():
    places = Places([40.0, 40.1], [116.0, 116.0], reach=500)
    assert places.encode([40.001, 40.099, 40.05], [116.0, 116.0, 116.0]).tolist() == [0, 1, -1]


def test_places_merge_where_they_stand_on_one_spot():
    assert Places([40.0, 40.0, 41.0], [116.0, 116.0, 116.0]).n_cells == (2,)


def test_embedding_differences_begin_as_displacements():
    for mapper in (BEIJING, H3((39.9, 116.3, 40.0, 116.4))):
        vectors = cell_embedding(mapper, 0, 4).weight[:, :2].detach().numpy()
        lat, lon = mapper.decode(np.arange(mapper.n_cells[0]))
        plane = np.column_stack([lat, lon * np.cos(np.radians(lat.mean()))])
        a, b = np.random.default_rng(0).integers(mapper.n_cells[0], size=(2, 200))
        learned, true = np.linalg.norm(vectors[a] - vectors[b], axis=1), np.linalg.norm(plane[a] - plane[b], axis=1)
        far = true > 0
        assert np.ptp(learned[far] / true[far]) < 1e-2 * np.median(learned[far] / true[far])


@pytest.mark.parametrize(("lat", "lon"), [(39.9, 116.4), (-33.9, 18.4), (60.0, -180.0), (1.0, 179.9), (-0.5, -0.1)])
def test_the_grid_is_in_the_zone_that_geopandas_finds(lat, lon):
    import geopandas

    around = [lat, lat + 0.02], [lon, lon + 0.02]
    middle = geopandas.GeoSeries.from_xy([lon + 0.01], [lat + 0.01], crs=4326)
    assert Grid.fit(*around).crs == f"EPSG:{middle.estimate_utm_crs().to_epsg()}"
