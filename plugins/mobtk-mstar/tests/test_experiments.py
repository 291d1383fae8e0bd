"""Every question is answered at the smallest size, and its figures are what they are called."""

import numpy as np
import pytest
from mobtk_mstar.experiments import entropy, flips

from mobtk.experiments import run_experiment, table
from mobtk.plugins import registry

NAMES = [e.full_name for e in registry().entries("experiment") if e.package == "mstar"]


def test_flips_and_entropy_of_known_weeks():
    assert flips(np.array([[1, 1, 2, 1, 1, 3, 3, 1], [5] * 8])) == 0.5
    assert entropy(np.array([[1] * 8, [1, 2] * 4, [1, 2, 3, 4] * 2])).tolist() == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_answered(name, tmp_path_factory):
    out = tmp_path_factory.getbasetemp() / "experiments"
    result = run_experiment(name, size="smoke", out=out)
    assert result["rows"] and result["verdict"] and result["question"].endswith("?")
    assert name.replace(".", "/") == result["experiment"] and result["verdict"] in table(result)
    if name != "mstar.speed":  # measures anew
        again = run_experiment(name, size="smoke", out=out)
        assert again["verdict"] == result["verdict"], "what was trained is found again"
