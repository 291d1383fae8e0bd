"""Runs that an earlier release wrote still load, and answer the same."""

import importlib.util
import json
from pathlib import Path

import pytest

STORED = Path(__file__).parent / "stored"


@pytest.mark.parametrize("release", sorted(p.parent for p in STORED.glob("*/answers.json")), ids=lambda p: p.name)
def test_a_run_of_an_earlier_release_answers_the_same(release):
    spec = importlib.util.spec_from_file_location("make", STORED / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    then, now = json.loads((release / "answers.json").read_text()), make.answers(release)
    assert then.keys() == now.keys()
    for task, numbers in then.items():
        assert now[task] == pytest.approx(numbers, rel=1e-3, abs=1e-3), task


def test_there_is_one():
    assert list(STORED.glob("*/answers.json"))
