"""Checks answers to the exercises, those in ``exercises.py`` by default: ``python docs/learn/check.py 3 --file mine.py``."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from click import IntRange, argument, command, option
from click import Path as ClickPath
from sklearn.metrics import roc_auc_score

from mobtk import Schedule
from mobtk.backbones.gpt2 import GPT2
from mobtk.testing import LAWS

HERE = Path(__file__).parent


def check_1(given):
    """A degree of longitude at 60 degrees north in an hour, one outlier among the steps."""
    lat, lon, seconds = np.full(5, 60.0), np.array([0, 1, 2, 3, 90.0]), 3600.0 * np.arange(5)
    assert abs(given.median_speed(lat, lon, seconds) - 55.6) < 0.1


def check_2(given):
    """Moments that are not evenly apart, before and after."""
    time, place = np.array([0.0, 1.0, 3.0]), np.array([[5.0, 5.0], [0.0, 0.0], [2.0, 6.0]])
    told = given.constant_velocity(time, place, np.array([4.0, 6.5]))
    np.testing.assert_allclose(told, [[3.0, 9.0], [5.5, 16.5]])


def check_3(given):
    """The value of the one, the gradient of the other."""
    x, chosen = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3)
    out = given.straight_through(x, chosen)
    out.sum().backward()
    assert torch.allclose(out, chosen) and torch.equal(x.grad, torch.ones(4, 3))


def check_4(given):
    """Eight steps by hand, and a longer one."""
    assert given.doubling(8) == Schedule((1, 1, 2, 4), (0, 4, 2, 6, 1, 3, 5, 7))
    assert given.doubling(64).n_groups == 7 and given.doubling(1).lengths == (1,)


def check_5(given):
    """Powers that are known."""
    steps = np.arange(1, 30)
    assert abs(given.growth(3 * steps**1.5) - 1.5) < 1e-6 and abs(given.growth(np.full(5, 2.0))) < 1e-6


def check_6(given):
    """One that keeps the promise, one that normalises over time, one that looks a single step ahead."""
    torch.manual_seed(0)
    backbone, schedule = GPT2(8, depth=1, heads=2).eval(), Schedule.autoregressive(12)
    assert not given.leaks(lambda x: backbone(x, schedule), 12, 8)
    assert given.leaks(lambda x: backbone((x - x.mean(1)) / x.std(1), schedule), 12, 8)
    assert given.leaks(lambda x: x + 0.01 * torch.roll(x, -1, 1) * (torch.arange(12) < 11)[:, None], 12, 8)


def check_7(given):
    """Two books of which the second mends the first."""
    x = np.array([[0.9, 0.0], [5.2, 1.0]])
    books = [np.array([[0.0, 0.0], [5.0, 1.0]]), np.array([[1.0, 0.0], [0.0, 0.0], [0.2, 0.0]])]
    assert np.asarray(given.residual_codes(x, books)).tolist() == [[0, 0], [1, 2]]


def check_8(given):
    """M-STAR's mask, which hides 84,455 of 470 times 470 pairs."""
    assert given.pairs([1, 7, 14, 28, 56, 84, 112, 168]) == 470**2 - 84_455
    assert given.pairs([1] * 5) == 15 and given.pairs([4]) == 16


def check_9(given):
    """Against the loop, at lengths that are no power of two."""
    for n in (1, 2, 7, 100):
        torch.manual_seed(n)
        a, b = torch.rand(n, dtype=torch.float64), torch.randn(n, dtype=torch.float64)
        h, loop = torch.zeros((), dtype=torch.float64), []
        for t in range(n):
            h = a[t] * h + b[t]
            loop.append(h)
        torch.testing.assert_close(given.scan(a, b), torch.stack(loop))


def check_10(given):
    """Even, and all to one."""
    even = torch.full((8, 4), 0.25)
    assert abs(float(given.balance(even, torch.arange(8) % 4)) - 1) < 1e-6
    sure = torch.tensor([[1.0, 0.0, 0.0]]).repeat(5, 1)
    assert abs(float(given.balance(sure, torch.zeros(5, dtype=torch.long))) - 3) < 1e-6


def check_11(given):
    """Against scikit-learn, with ties."""
    rng = np.random.default_rng(0)
    members, outsiders = rng.integers(0, 9, 40) + 1, rng.integers(0, 9, 70)
    truth = roc_auc_score([1] * 40 + [0] * 70, [*members, *outsiders])
    assert abs(given.auc(members, outsiders) - truth) < 1e-9


def check_12(given):
    """By hand, and by every law of backbones."""
    x = torch.tensor([[[1.0], [3.0], [8.0]]])
    assert given.Mean(1)(x, Schedule((1, 2))).flatten().tolist() == [2.0, 7.0, 12.0]
    for law in LAWS["backbone"]:
        law(given.Mean)


CHECKS = [check_1, check_2, check_3, check_4, check_5, check_6, check_7, check_8, check_9, check_10, check_11, check_12]


def load(file):
    """The module of a file."""
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@command()
@argument("chapters", nargs=-1, type=IntRange(1, 12))
@option("--file", default=HERE / "exercises.py", type=ClickPath(exists=True, dir_okay=False), help="Whose answers.")
def main(chapters, file):
    """Check the answers of some CHAPTERS, or of all."""
    given, wrong = load(file), 0
    for i, check in enumerate(CHECKS, 1):
        if chapters and i not in chapters:
            continue
        try:
            check(given)
            said = "right"
        except NotImplementedError:
            said = "not answered yet"
        except Exception as error:
            said = f"not yet: {check.__doc__} {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip()
        wrong += said != "right"
        print(f"exercise {i:2d}: {said}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
