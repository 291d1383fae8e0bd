"""Every experiment runs and has a verdict; those that train many models with the long tests."""

import pytest

from mobtk.errors import BadInput
from mobtk.experiments import run_experiment, stored, table
from mobtk.plugins import registry

NAMES = [e.name for e in registry().entries("experiment") if e.package == "trajfm"]
QUICK = ("leak", "codec", "deltas", "loader", "overfit-one", "autoencoder", "collapse", "objective")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_it_runs_and_has_a_verdict(name, tmp_path):
    result = run_experiment(f"trajfm/{name}", size="smoke", out=tmp_path)
    assert result["rows"]
    assert result["verdict"] in table(result)
    assert result["holds"] in (True, False, None)
    assert stored(f"trajfm/{name}", out=tmp_path)["verdict"] == result["verdict"]
    if name in ("leak", "codec", "loader", "overfit-one", "autoencoder"):
        assert result["holds"], result["verdict"]
    if name == "transfer":
        assert result["rows"][0]["moved by 58 km"] == pytest.approx(1, abs=1e-3)
    if name == "positions":
        assert "beyond their length refuse: learned" in result["verdict"]


def test_what_was_not_answered_is_told(tmp_path):
    with pytest.raises(BadInput, match="trajfm/codec was not answered in .*; mobtk experiment run trajfm/codec"):
        stored("codec", out=tmp_path)
