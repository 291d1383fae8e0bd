"""A week as it is decided: frames go from nothing to everything, in pages and pictures."""

import json
import re

import pytest
from PIL import Image

import mobtk
from mobtk.errors import BadInput
from mobtk.report.animation import animate, unfold


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("animation")
    coarse = mobtk.train(mobtk.build("tiny", folder / "coarse", weeks=200))
    changes = {"width": 16, "backbone.depth": 1, "training.generator.epochs": 1}
    hourly = mobtk.train(mobtk.build("autoregressive", folder / "hourly", data=coarse.path / "data", changes=changes))
    masked = mobtk.train(mobtk.build("masked", folder / "masked", data=coarse.path / "data", changes=changes))
    return coarse, hourly, masked


def test_a_week_comes_about(runs):
    for run, passes in zip(runs, (3, 168, 8), strict=True):
        told = unfold(run, drawn=6, most=9)
        assert told.passes == passes and told.frames[0].passes == 0 and told.frames[-1].passes == passes
        assert [f.tokens for f in told.frames] == sorted(f.tokens for f in told.frames)
        first, last = told.frames[0], told.frames[-1]
        assert sum(first.bits) / len(first.bits) == pytest.approx(first.entropy[0], abs=0.01) and set(last.bits) == {0}
        assert first.entropy[0] > 1 and last.entropy == [0.0] * len(last.entropy), "in the end nothing is open"
        assert set(last.shares[0]) == {100} and sum(share for _, share in last.sure) == pytest.approx(100, abs=1)
        assert all(a >= b - 0.3 for a, b in zip(first.entropy, first.entropy[1:], strict=False)), "coarse is surer than fine"


def test_hour_by_hour_what_is_decided_does_not_change(runs):
    frames = unfold(runs[1], drawn=4, most=8).frames
    for a in frames:
        assert a.cells[: a.tokens] == frames[-1].cells[: a.tokens]
        assert set(a.shares[0][: a.tokens]) <= {100}


def test_the_same_seed_is_the_same_week(runs):
    assert unfold(runs[0], drawn=3, seed=4) == unfold(runs[0], drawn=3, seed=4)


def test_the_page_is_whole_by_itself(runs, tmp_path):
    animate(runs, tmp_path / "week.html", drawn=3)
    page = (tmp_path / "week.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=", page)
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["unfoldings"]) == 3 and data["levels"][0] == "cell"
    shown = {str(c) for u in data["unfoldings"] for f in u["frames"] for c in f["cells"]}
    assert shown <= set(data["shapes"]) and shown == {c for of_model in data["colours"] for c in of_model}
    for control in ("play", "back", "next", "at", "level"):
        assert f'id="{control}"' in page and f'"{control}"' in page.split("<script>")[1]


def test_the_moving_picture(runs, tmp_path):
    animate(runs[:1], tmp_path / "week.gif", drawn=3)
    with Image.open(tmp_path / "week.gif") as picture:
        assert picture.n_frames == 4


def test_what_cannot_be_shown_is_told(runs, tmp_path):
    other = mobtk.build("tiny", tmp_path / "other", weeks=40, changes={"mapper.size": 2000.0})
    with pytest.raises(BadInput, match="are of the same map"):
        animate([runs[0], other], tmp_path / "week.html")
    with pytest.raises(BadInput, match="neither a page"):
        animate(runs, tmp_path / "week.mp4")
    with pytest.raises(BadInput, match="person is 0 to"):
        unfold(runs[0], person=10**6)
