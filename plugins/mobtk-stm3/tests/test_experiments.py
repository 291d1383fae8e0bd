"""Every experiment runs and has a verdict; most of them with the long tests."""

import pytest

from mobtk.experiments import run_experiment, table
from mobtk.plugins import registry

NAMES = [e.name for e in registry().entries("experiment") if e.package == "stm3"]
QUICK = ("planted",)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_it_runs_and_has_a_verdict(name, tmp_path):
    result = run_experiment(f"stm3/{name}", size="smoke", out=tmp_path)
    assert result["rows"]
    assert result["verdict"] in table(result)
    assert result["holds"] in (True, False, None)
    assert (tmp_path / "stm3" / "smoke" / f"{name}.json").is_file()
    if name == "specialisation":
        assert (tmp_path / "stm3" / "smoke" / "specialisation.png").read_bytes()[:4] == b"\x89PNG"
    if name == "published-vs-corrected":
        assert {"ridge", "seasonal naive"} <= {row["case"] for row in result["rows"]}
