"""Continuous points as tokens: how far, how long and in which direction, in units that follow each trajectory."""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mobtk.contracts import Head, Paths, PointTokenizer, PointTokens, Rows, State
from mobtk.errors import BadInput
from mobtk.tokenizers.number_heads import CellsHead, GaussianMixtureHead, RegressionHead

HEADS: dict[str, type[Head]] = {"regression": RegressionHead, "mixture": GaussianMixtureHead, "cells": CellsHead}
TARGETS = ("delta", "velocity", "absolute")
PRIOR = 2
"""Steps of the usual length and duration that each trajectory is taken to have made before its first."""
LEAST_METRES, LEAST_SECONDS = 1.0, 0.1
"""Of a unit, so that where nothing moves, noise is not made large."""
WAVES = (1 / 604_800, 1 / 86_400, 2 / 86_400, 4 / 86_400)
"""Turns a second of the clock's features: a week, a day, half and a quarter of one."""


@final
class Points(PointTokenizer):
    """Tokens of ``patch`` points each, by a linear map of what is shown around them; for models in the manner of Merten,
    Sakr and Dejaegere 2025 (https://arxiv.org/abs/2511.20610), without the faults of their code.

    Nothing is measured over a batch or over what comes later. A trajectory's own units, its mean step in metres and seconds
    and its speed, run with it (of what is shown, where all is decided at once) and begin with those of the training split.
    Moments are float64 until they are differences. Of a point a token says: the last step shown before it; how far that
    would go on; when the point is, and where, as far as shown; the next place shown after it, and the step there; how many
    points lie between; the way along what is shown; the time of the day and of the week; the units themselves.

    The paper's inputs are coordinates and differences by fixed factors, its clock also has minutes and seconds, and its
    code scales each batch by itself.

    Args:
        patch: points of a token (Das et al. 2023, https://arxiv.org/abs/2310.10688, for series).
        target: places are told as the way from the last one shown, or, between two shown ones, from the line that joins them
            in time (``delta``); the same from where the last velocity would lead (``velocity``); or as they are, in a unit
            for all (``absolute``), which is what goes wrong elsewhere.
        head: ``regression``, ``mixture`` of Gaussians, or ``cells``.
        components: of a mixture.
        running: units run with each trajectory; if not, those of the training split serve all.
        clock: whether the time of the day and of the week is told.
    """

    def __init__(
        self,
        width: int,
        *,
        patch: int = 1,
        target: str = "delta",
        head: str = "regression",
        components: int = 8,
        running: bool = True,
        clock: bool = True,
    ) -> None:
        super().__init__()
        if patch < 1:
            raise BadInput(f"a patch has a point at least, not {patch}")
        if target not in TARGETS:
            raise BadInput(f"target is one of {', '.join(TARGETS)}, not {target!r}")
        if head not in HEADS:
            raise BadInput(f"head is one of {', '.join(HEADS)}, not {head!r}")
        self.patch, self.target, self.running, self.clock = patch, target, running, clock
        more = {"components": components} if head == "mixture" else {}
        self.place_head: Head = HEADS[head](width, 2, **more)
        self.time_head: Head = HEADS[head](width, 1, **more)
        self.embed = nn.Linear(patch * N_FEATURES, width)
        self.unpatch = nn.Linear(width, patch * width) if patch > 1 else nn.Identity()
        self.register_buffer("usual", torch.tensor([10.0, 10.0, 1000.0], dtype=torch.float64))
        self.usual: Tensor

    def fit(self, paths: Paths) -> None:
        """The mean step in metres and in seconds, and how far a place is from its origin."""
        there = _there(paths)[:, 1:]
        ways, times = _steps(paths.place)[there], paths.time.diff(dim=1)[there]
        far = paths.place.norm(dim=-1)[_there(paths)]
        found = torch.stack([ways.mean(), times.mean(), far.square().mean().sqrt()])
        self.usual.copy_(found.clamp(min=torch.tensor([LEAST_METRES, LEAST_SECONDS, LEAST_METRES], dtype=found.dtype)))

    def onward(self, paths: Paths, first: int, last: int, state: State) -> PointTokens:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        p, device = self.patch, paths.place.device
        before = (torch.arange(first, last, device=device) * p - 1).clamp(min=0)  # the last point that each token knows
        done, sums = state.get("done", 0), state.get("sums", paths.place.new_zeros(len(paths.place), 2))
        most = int(before[-1])
        walked = paths.place[:, done : most + 1]
        taken = torch.stack([_steps(walked), paths.time[:, done : most + 1].diff(dim=1)], -1)
        sums = torch.cat([sums[:, None], sums[:, None] + taken.cumsum(1)], 1)
        state["done"], state["sums"] = most, sums[:, -1]
        at = sums[:, before - done].repeat_interleave(p, 1)  # (B, l * patch, 2)
        before = before.repeat_interleave(p)
        own = torch.arange(first * p, last * p, device=device)
        units = self._units(at[..., 0], at[..., 1], before, before)
        earlier = (before - 1).clamp(min=0)
        since = (own - before).clamp(min=1).to(at.dtype)
        x1, t1 = paths.place[:, before], paths.time[:, before]
        shown = ~paths.hidden_time[:, own] & (own < paths.lengths[:, None])
        expected = t1 + units.seconds * since
        when = torch.where(shown, paths.time[:, own], expected)
        nothing = torch.zeros_like(x1)
        view = _View(
            units=units,
            step=x1 - paths.place[:, earlier],
            lasted=t1 - paths.time[:, earlier],
            elapsed=when - t1,
            own=nothing,
            to_next=nothing,
            next_step=nothing,
            until_next=torch.zeros_like(t1),
            way=torch.zeros_like(t1),
            since=since.expand_as(t1),
            until=torch.zeros_like(t1),
            flags=torch.stack([torch.zeros_like(shown), shown, torch.zeros_like(shown), torch.ones_like(shown)], -1),
            place=x1,
            when=when,
        )
        metres = units.speed * (when - t1).abs().clamp(min=LEAST_SECONDS) + LEAST_METRES
        far = nothing if self.target == "delta" else view.ahead()
        rows = Rows(times=(when / self.usual[1]).float()[:, ::p], places=(x1 / self.usual[0]).float()[:, ::p])
        return self._tokens(paths, view, rows, x1 + far, expected, metres, (units.seconds * since).clamp(min=LEAST_SECONDS))

    def at_once(self, paths: Paths) -> PointTokens:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        n = paths.time.shape[1]
        there = _there(paths)
        seen_place, seen_time = there & ~paths.hidden_place, there & ~paths.hidden_time
        places, times = _Shown(seen_place), _Shown(seen_time)
        index = torch.arange(n, device=there.device).to(paths.time.dtype).expand_as(paths.time)
        s0, t0 = self.usual[0], self.usual[1]
        rough = times.fill(paths.time, index, t0)  # moments by the number of points alone, to place what lies between
        line = places.between(paths.place, rough)
        walked = torch.nn.functional.pad(_steps(line).cumsum(1), (1, 0))
        units = self._shown_units(walked, rough, places, times)
        expected = times.fill(paths.time, (walked / units.speed + units.seconds * index) / 2, 1.0)
        when = torch.where(seen_time, paths.time, expected)
        line = places.between(paths.place, when)
        x1, x2 = _at(paths.place, places.before), _at(paths.place, places.earlier)
        t1 = _at(when, places.before)
        after, later = places.after.clamp(max=n - 1), places.later.clamp(max=n - 1)
        y1, y2 = _at(paths.place, after), _at(paths.place, later)
        has_next = places.after < n
        next_after = has_next[..., None]
        until = torch.where(has_next, _at(when, after) - when, torch.inf)
        elapsed = when - t1
        view = _View(
            units=units,
            step=x1 - x2,
            lasted=t1 - _at(when, places.earlier),
            elapsed=elapsed,
            own=torch.where(seen_place[..., None], paths.place - x1, 0.0),
            to_next=torch.where(next_after, y1 - x1, 0.0),
            next_step=torch.where(next_after & (places.later < n)[..., None], y2 - y1, 0.0),
            until_next=torch.where(has_next, until, 0.0),
            way=walked - _at(walked, times.before),
            since=index - places.before,
            until=torch.where(has_next, places.after - index, 0.0),
            flags=torch.stack([seen_place, seen_time, has_next, torch.zeros_like(has_next)], -1),
            place=x1,
            when=when,
        )
        nearest = torch.minimum(elapsed, until).clamp(min=LEAST_SECONDS)
        metres = units.speed * nearest + LEAST_METRES
        passed = (view.way / units.speed + units.seconds * (index - times.before)) / 2
        left = _at(walked, times.after.clamp(max=n - 1)) - walked
        rest = (left / units.speed + units.seconds * (times.after - index)) / 2
        seconds = torch.where(times.after < n, torch.minimum(passed, rest), passed).clamp(min=LEAST_SECONDS)
        anchor = line
        if self.target == "velocity":
            anchor = torch.where(next_after, line, x1 + view.ahead())
        p = self.patch
        rows = Rows(lengths=-(-paths.lengths // p), times=(when / t0).float()[:, ::p], places=(line / s0).float()[:, ::p])
        return self._tokens(paths, view, rows, anchor, expected, metres, seconds)

    def apart(self, hidden: Float[Tensor, "B l D"]) -> Float[Tensor, "B p D"]:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        return self.unpatch(hidden).unflatten(-1, (self.patch, -1)).flatten(1, 2)

    def knowing(self, hidden: Float[Tensor, "B p D"], place: Float[Tensor, "B p 2"]) -> Float[Tensor, "B p D"]:
        """The same: a place says nothing of its moment that the tokens do not."""
        return hidden

    def _units(self, metres: Tensor, seconds: Tensor, walks: Tensor, waits: Tensor) -> "_Units":
        """From the sums of so many steps to a trajectory's units."""
        s0, t0 = self.usual[0], self.usual[1]
        if not self.running:
            one = torch.ones_like(metres)
            return _Units(s0 * one, t0 * one, s0 / t0 * one)
        step, wait = (metres + PRIOR * s0) / (walks + PRIOR), (seconds + PRIOR * t0) / (waits + PRIOR)
        return _Units(step, wait, step / wait)

    def _shown_units(self, walked: Tensor, when: Tensor, places: "_Shown", times: "_Shown") -> "_Units":
        """Units of all that is shown of a trajectory; of speed only those steps tell whose place and moment are known."""
        known = torch.minimum(places.last, times.last)
        whole = self._units(_at(walked, places.last), _at(when, times.last), places.last, times.last)
        moving = self._units(_at(walked, known), _at(when, known), known, known)
        return _Units(*(x.expand_as(when) for x in (whole.metres, whole.seconds, moving.metres / moving.seconds)))

    def _tokens(
        self, paths: Paths, view: "_View", rows: Rows, place: Tensor, time: Tensor, metres: Tensor, seconds: Tensor
    ) -> PointTokens:
        start, usual = paths.start[:, None], self.usual
        if self.target == "absolute":
            place, metres = torch.zeros_like(place), usual[2].expand_as(metres)
        features = view.features(start, usual, self.target == "absolute", self.clock)
        inputs = self.embed(features.unflatten(1, (-1, self.patch)).flatten(2))
        return PointTokens(inputs, rows, place, time, metres, seconds)


@dataclass
class _Units:
    """Metres and seconds of a step, and metres a second."""

    metres: Float[Tensor, "B n"]
    seconds: Float[Tensor, "B n"]
    speed: Float[Tensor, "B n"]


@dataclass
class _View:
    """What is shown around each point: lengths in metres, times in seconds."""

    units: _Units
    step: Float[Tensor, "B n 2"]  # the last one before it
    lasted: Float[Tensor, "B n"]  # which took so long
    elapsed: Float[Tensor, "B n"]  # since the last place shown
    own: Float[Tensor, "B n 2"]  # from there
    to_next: Float[Tensor, "B n 2"]  # from there to the next place shown
    next_step: Float[Tensor, "B n 2"]  # and on from that
    until_next: Float[Tensor, "B n"]
    way: Float[Tensor, "B n"]  # along what is shown, since the last moment shown
    since: Float[Tensor, "B n"]  # points since the last place shown
    until: Float[Tensor, "B n"]  # and up to the next one
    flags: Bool[Tensor, "B n 4"]
    place: Float[Tensor, "B n 2"]  # the last one shown
    when: Float[Tensor, "B n"]

    def ahead(self) -> Float[Tensor, "B n 2"]:
        """How far the last step's velocity leads."""
        return self.step * (self.elapsed / self.lasted.clamp(min=LEAST_SECONDS))[..., None].clamp(-100, 100)

    def features(
        self, start: Float[Tensor, "B 1"], usual: Float[Tensor, "3"], absolute: bool, clock: bool
    ) -> Float[Tensor, "B n F"]:
        """All of it as numbers of about unit size."""
        metres, seconds = self.units.metres[..., None], self.units.seconds[..., None]
        if absolute:
            shown = self.flags.to(metres.dtype)
            vectors = [
                self.place / usual[2],
                (self.place - self.step) / usual[2],
                (self.place + self.own) / usual[2] * shown[..., :1],
                (self.place + self.to_next) / usual[2] * shown[..., 2:3],
                self.next_step / usual[2],
            ]
        else:
            ahead = self.ahead() / (self.units.speed * self.elapsed.clamp(min=LEAST_SECONDS) + LEAST_METRES)[..., None]
            vectors = [part / metres for part in (self.step, self.own, self.to_next, self.next_step)]
            vectors.append(ahead)
        times = torch.stack([self.lasted, self.elapsed, self.until_next, self.way / self.units.speed], -1) / seconds
        counts = torch.stack([self.since, self.until], -1).log1p()
        units = torch.cat([metres / usual[0], seconds / usual[1]], -1).log()
        turns = (start + self.when)[..., None] * torch.tensor(WAVES, dtype=start.dtype, device=start.device)
        angle = 2 * math.pi * turns.frac() * clock
        parts = [*(v.asinh() for v in vectors), times.asinh(), counts, units, angle.sin(), angle.cos()]
        return torch.cat([torch.cat(parts, -1).float(), self.flags.float()], -1)


N_FEATURES = 10 + 4 + 2 + 2 + 2 * len(WAVES) + 4


class _Shown:
    """For each point, the nearest ones that are shown: the last before it, the one before that; the next after it (``n``
    where there is none), and the one after that.
    """

    def __init__(self, seen: Bool[Tensor, "B n"]) -> None:
        n = seen.shape[1]
        index = torch.arange(n, device=seen.device).expand(seen.shape)
        up_to = torch.where(seen, index, 0).cummax(1).values
        self.before = torch.cat([up_to[:, :1], up_to[:, :-1]], 1)
        self.earlier = _at(self.before, self.before)
        onward = torch.where(seen, index, n).flip(1).cummin(1).values.flip(1)
        self.after = torch.cat([onward[:, 1:], torch.full_like(onward[:, :1], n)], 1)
        self.later = _at(torch.cat([self.after, torch.full_like(onward[:, :1], n)], 1), self.after)
        self.last: Int[Tensor, "B 1"] = up_to[:, -1:]
        self.seen, self.n = seen, n

    def fill(self, values: Float[Tensor, "B n"], by: Float[Tensor, "B n"], pace: Tensor | float) -> Float[Tensor, "B n"]:
        """Each point's value from the shown ones on both sides of it, by the share of ``by``; after the last one, at a pace.
        What is shown stays.
        """
        after = self.after.clamp(max=self.n - 1)
        a, b, at = _at(values, self.before), _at(values, after), by - _at(by, self.before)
        whole = (_at(by, after) - _at(by, self.before)).clamp(min=1e-9)
        told = torch.where(self.after < self.n, a + (b - a) * (at / whole), a + at * pace)
        return torch.where(self.seen, values, told)

    def between(self, place: Float[Tensor, "B n 2"], when: Float[Tensor, "B n"]) -> Float[Tensor, "B n 2"]:
        """Shown places, and between them the line that joins them in time; after the last one, that one."""
        after = self.after.clamp(max=self.n - 1)
        a, b = _at(place, self.before), _at(place, after)
        share = (when - _at(when, self.before)) / (_at(when, after) - _at(when, self.before)).clamp(min=1e-3)
        told = a + torch.where((self.after < self.n)[..., None], (b - a) * share[..., None].clamp(0, 1), 0.0)
        return torch.where(self.seen[..., None], place, told)


def _there(paths: Paths) -> Bool[Tensor, "B n"]:
    return torch.arange(paths.time.shape[1], device=paths.time.device) < paths.lengths[:, None]


def _steps(place: Float[Tensor, "B n 2"]) -> Float[Tensor, "B m"]:
    """Metres of each step."""
    return place.diff(dim=1).norm(dim=-1)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Values of the points of these numbers."""
    if values.ndim == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(*index.shape, values.shape[-1]))
