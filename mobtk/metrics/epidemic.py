"""An epidemic among people who meet where their sequences cross, and how far its course is from the real one's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Disease:
    """How a disease spreads.

    Args:
        reproduction: people that one infects where all are susceptible and nobody is ever alone. Of a sample of a city most
            are alone in their cell for much of the time: then far fewer, so that 5 lets about a fifth of a few thousand
            people be ill at the peak.
        latent: mean days from infection to being infectious.
        infectious: mean days of being so.
        first: share of people infected at the start, drawn at random; at least five.
    """

    reproduction: float = 5.0
    latent: float = 2.0
    infectious: float = 5.0
    first: float = 0.005


def seir(
    cells: ArrayLike,
    steps_per_day: int,
    *,
    days: int = 120,
    repeats: int = 20,
    seed: int = 0,
    disease: Disease | None = None,
) -> NDArray[np.float64]:
    """Share of people that are infected (latent or infectious) each day, mean over repeats, ``(days,)``.

    A stochastic SEIR model (Kermack and McKendrick 1927, https://doi.org/10.1098/rspa.1927.0118, with a latent state): at
    each step every susceptible person meets others of the same cell at random, so that the chance to be infected is
    ``1 - exp(-r I / n)``, with ``I`` of the ``n`` others of the cell infectious. Sequences are lived again and again.

    Args:
        cells: ``(N, T)``.
        steps_per_day: steps of a day.
        days: how long it is watched.
        repeats: runs with other random numbers.
        seed: of them.
        disease: how it spreads.
    """
    cells, disease = np.asarray(cells), disease or Disease()
    n, steps = cells.shape
    n_cells = int(cells.max()) + 1
    rate = disease.reproduction / (disease.infectious * steps_per_day)
    become, recover = (1 - np.exp(-1 / (d * steps_per_day)) for d in (disease.latent, disease.infectious))
    columns = np.ascontiguousarray(cells.T)
    others = [np.maximum(1, np.bincount(c, minlength=n_cells) - 1) for c in columns]
    active = np.zeros(days)
    for repeat in range(repeats):
        rng = np.random.default_rng([seed, repeat])
        state = np.zeros(n, np.int8)  # susceptible, latent, infectious, recovered
        state[rng.permutation(n)[: max(5, round(disease.first * n))]] = 1
        for day in range(days):
            for step in range(day * steps_per_day, (day + 1) * steps_per_day):
                here = columns[step % steps]
                sick = np.flatnonzero(state == 2)
                latent = np.flatnonzero(state == 1)
                if not len(sick) and not len(latent):
                    break
                if len(sick):
                    danger = 1 - np.exp(-rate * np.bincount(here[sick], minlength=n_cells) / others[step % steps])
                    exposed = np.flatnonzero((danger[here] > 0) & (state == 0))
                    state[exposed[rng.random(len(exposed)) < danger[here[exposed]]]] = 1
                    state[sick[rng.random(len(sick)) < recover]] = 3
                state[latent[rng.random(len(latent)) < become]] = 2
            active[day] += np.count_nonzero((state == 1) | (state == 2)) / n
    return active / repeats


def active_error(real: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """See the card ``active``."""
    there = real > 0.001
    return float((np.abs(generated - real)[there] / real[there]).mean()) if there.any() else float("nan")


def peak_day_error(real: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """See the card ``peak_day``."""
    return float(abs(int(generated.argmax()) - int(real.argmax())))


def peak_height_error(real: NDArray[np.float64], generated: NDArray[np.float64]) -> float:
    """See the card ``peak_height``."""
    return float(abs(generated.max() - real.max()) / real.max()) if real.max() else float("nan")
