"""Every part of this plugin, every law of its kind."""

import pytest

from mobtk.testing import cases


@pytest.mark.parametrize(("part", "law"), cases("voronoi"))
def test_law(part, law):
    law(part)
