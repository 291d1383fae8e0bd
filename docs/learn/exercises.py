"""Exercises of the course, one a chapter. Fill them in here or in a copy; ``python docs/learn/check.py [CHAPTER]`` checks
this file, and ``python docs/learn/check.py --file mine.py`` a copy. Answers are in ``answers.py``.
"""

from mobtk.contracts import Backbone


def median_speed(lat, lon, seconds):
    """1. The median speed in km/h along points in degrees, at moments in seconds."""
    raise NotImplementedError


def constant_velocity(time, place, when):
    """2. Where one is, ``(k, 2)``, at moments ``when (k,)``, going on as between the last two of ``time (n,)`` and
    ``place (n, 2)``.
    """
    raise NotImplementedError


def straight_through(x, chosen):
    """3. The value of ``chosen`` with the gradient of ``x`` (two tensors of one shape)."""
    raise NotImplementedError


def doubling(steps):
    """4. A schedule of so many steps, a power of two, in which the first pass decides one step and each later one as many
    as all passes before it together; ``times`` are midway between decided steps: 0, then steps / 2, then steps / 4 and
    3 steps / 4, ...
    """
    raise NotImplementedError


def growth(errors):
    """5. The power ``p`` for which ``errors`` (at 1, 2, ... steps) are nearest to ``c * steps ** p``, in logarithms."""
    raise NotImplementedError


def leaks(model, steps, width):
    """6. Whether some output of ``model`` (from and to ``(1, steps, width)``) moves when a later input changes."""
    raise NotImplementedError


def residual_codes(x, books):
    """7. For vectors ``x (n, d)`` and codebooks ``[(V, d), ...]``: the nearest code of each book to what the books before
    have left, ``(n, books)``.
    """
    raise NotImplementedError


def pairs(lengths):
    """8. How many pairs of tokens (one looks at the other, or at itself) a schedule of these group lengths lets through."""
    raise NotImplementedError


def scan(a, b):
    """9. ``h_t = a_t h_{t-1} + b_t`` with ``h_{-1} = 0`` for tensors ``(L,)``, in about ``log2(L)`` rounds."""
    raise NotImplementedError


def balance(probabilities, chosen):
    """10. The loss of load balance: experts times the sum over experts of the share of sequences that chose it times its
    mean probability, for ``probabilities (M, E)`` and ``chosen (M,)``.
    """
    raise NotImplementedError


def auc(members, outsiders):
    """11. The share of pairs of a member and an outsider in which the member's score is higher; a tie counts half."""
    raise NotImplementedError


class Mean(Backbone):
    """12. Each token plus the mean over all tokens of its own group and of earlier ones."""

    uses_condition = False

    def __init__(self, width):
        super().__init__()

    def forward(self, x, schedule, cond=None, state=None):
        """All tokens at once, or with a state those of the next groups."""
        raise NotImplementedError

    def new_state(self, batch, schedule):
        """What is remembered between groups."""
        raise NotImplementedError
