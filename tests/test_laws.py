"""Every part, every law."""

from functools import partial

import pytest
import torch

from mobtk.contracts import Backbone
from mobtk.testing import LAWS, cases, check_parts
from mobtk.testing import laws as the_laws
from mobtk.tokenizers.points import Points


@pytest.mark.parametrize(("part", "law"), cases())
def test_law(part, law):
    law(part)


@pytest.mark.parametrize("law", LAWS["point tokenizer"])
@pytest.mark.parametrize("options", [{"patch": 4}, {"patch": 5}, {"target": "absolute"}, {"running": False}])
def test_laws_hold_with_other_options(law, options):
    """Tokens of several points, whose last one may be half empty, above all."""
    if law is not the_laws.options_have_defaults:
        law(partial(Points, **options))


def test_every_law_is_a_sentence():
    for kind, laws in LAWS.items():
        for law in laws:
            assert law.__doc__ and law.__doc__.strip().endswith("."), f"{kind}: {law.__name__} says nothing"


def test_check_parts_reports_all_parts():
    verdicts = check_parts("mobtk")
    assert len(verdicts) == len(cases("mobtk"))
    assert [v for v in verdicts if v.problem] == []


class _Leaky(Backbone):
    """A backbone with one fault, by name."""

    uses_condition = False

    def __init__(self, width, *, fault=""):
        super().__init__()
        self.mix = torch.nn.Linear(width, width)
        self.fault = fault

    def forward(self, x, schedule, cond=None, state=None):
        y = self.mix(x)
        if self.fault == "future":
            return y + y.mean(1, keepdim=True)
        if self.fault == "batch":
            y = y - y.mean(0, keepdim=True)
        seen = y.cumsum(1)
        if state is not None and self.fault != "forgets":
            seen = seen + state["sum"]
            state["sum"] = seen[:, -1:]
        return seen

    def new_state(self, batch, schedule):
        return {"sum": 0.0}


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("future", the_laws.later_groups_change_nothing),
        ("batch", the_laws.sequences_are_apart),
        ("forgets", the_laws.group_by_group_is_all_at_once),
    ],
)
def test_a_law_catches_the_fault(fault, law):
    law(_Leaky)  # sound without the fault

    class Faulty(_Leaky):
        def __init__(self, width):
            super().__init__(width, fault=fault)

    with pytest.raises(AssertionError):
        law(Faulty)
