"""Every part, every law."""

from functools import partial

import pytest

from mobtk.testing import LAWS, cases, check_parts
from mobtk.testing.checking import with_options
from mobtk.testing.laws.common import options_have_defaults
from mobtk.tokenizers.cells import CellTokens
from mobtk.tokenizers.points import Points


@pytest.mark.parametrize(("part", "law"), cases())
def test_law(part, law):
    law(part)


@pytest.mark.parametrize("law", LAWS["tokenizer"])
@pytest.mark.parametrize("passes", [1, 5, 8, 24])
def test_laws_hold_in_any_number_of_passes(law, passes):
    law(with_options(CellTokens, passes=passes))


@pytest.mark.parametrize("law", LAWS["point tokenizer"])
@pytest.mark.parametrize("options", [{"patch": 4}, {"patch": 5}, {"target": "absolute"}, {"running": False}])
def test_laws_hold_with_other_options(law, options):
    """Tokens of several points, whose last one may be half empty, above all."""
    if law is not options_have_defaults:
        law(partial(Points, **options))


def test_every_law_is_a_sentence():
    for kind, laws in LAWS.items():
        for law in laws:
            assert law.__doc__ and law.__doc__.strip().endswith("."), f"{kind}: {law.__name__} says nothing"


def test_check_parts_reports_all_parts():
    verdicts = check_parts("mobtk")
    assert len(verdicts) == len(cases("mobtk"))
    assert [v for v in verdicts if v.problem] == []
