"""TrajGPT: visits, told as a region, then how long the way there takes, then how long one stays."""

from pathlib import Path
from typing import final

import h3.api.basic_int as h3
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mobtk.contracts import Head, Paths, PointTokenizer, PointTokens, State
from mobtk.data.cut import split_rows
from mobtk.data.trajectories import Trajectories, TrajectoriesInfo
from mobtk.errors import BadInput
from mobtk.geo import from_local, to_local
from mobtk.storage import PathLike
from mobtk.tokenizers.heads import draw
from mobtk.tokenizers.points import Points

ORIGIN = (0.0, 0.0)
"""Where the plane of metres is laid on the earth to be cut into H3's hexagons."""


@final
class Visits(PointTokenizer):
    """Visits as in TrajGPT (Hsu et al. 2024, https://arxiv.org/abs/2411.04381): two points each, an arrival and a departure
    at the same place, see :func:`visit_trajectories`. A visit is told in this order: its region, of hexagons of H3; the
    travel time, given the region; the duration, given region and arrival. Times by mixtures of Gaussians.

    The authors' time heads read the first channels of the visit they foretell, which hold its arrival and departure: the
    answer. Here nothing is read of a visit before it is told. Theirs is an encoder with three decoders; ours is one
    backbone, which reads the arrival before it tells the departure. Hexagons are cut of the plane in which the model reads
    places, so they have H3's size and shape, and other ids.

    Args:
        regions: at most so many, the most visited; what lies in none of them counts as the nearest.
        resolution: of H3.
        components: of the mixtures.
    """

    patch = 1
    together = 2

    def __init__(self, width: int, *, regions: int = 600, resolution: int = 7, components: int = 3) -> None:
        super().__init__()
        self.points = Points(width, target="absolute", head="mixture", components=components)
        self.resolution = resolution
        self.place_head: Head = RegionHead(width, regions)
        self.time_head: Head = self.points.time_head
        del self.points.place_head, self.points.unpatch
        self.region = nn.Embedding(regions, width)
        self.parity = nn.Embedding(2, width)

    def fit(self, paths: Paths) -> None:
        """Measure units, and find the regions that are visited most."""
        self.points.fit(paths)
        there = torch.arange(paths.time.shape[1]) < paths.lengths[:, None]
        cells = [h3.latlng_to_cell(*x, self.resolution) for x in zip(*_on_earth(paths.place[there]), strict=True)]
        names, counts = np.unique(cells, return_counts=True)
        most = names[np.argsort(-counts, kind="stable")][: len(self.head.centres)]
        lat, lon = zip(*map(h3.cell_to_latlng, most.tolist()), strict=True)
        centres = torch.from_numpy(to_local(lat, lon, ORIGIN)) / self.points.usual[2]
        self.head.centres.copy_(centres[:1])  # those that are not used lie on the first, which comes before them
        self.head.centres[: len(centres)] = centres
        self.head.used.copy_(torch.arange(len(self.head.used)) < len(centres))

    @property
    def head(self) -> "RegionHead":
        """The place head."""
        assert isinstance(self.place_head, RegionHead)
        return self.place_head

    def at_once(self, paths: Paths) -> PointTokens:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        shown = ~paths.hidden_place & (torch.arange(paths.time.shape[1], device=paths.time.device) < paths.lengths[:, None])
        index = torch.arange(shown.shape[1], device=shown.device)
        last = torch.where(shown, index, 0).cummax(1).values
        return self._with_regions(self.points.at_once(paths), paths, last, index)

    def onward(self, paths: Paths, first: int, last: int, state: State) -> PointTokens:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        index = torch.arange(first, last, device=paths.time.device)
        before = (index - 1).clamp(min=0).expand(len(paths.time), -1)
        return self._with_regions(self.points.onward(paths, first, last, state), paths, before, index)

    def apart(self, hidden: Float[Tensor, "B l D"]) -> Float[Tensor, "B p D"]:
        """See :class:`~mobtk.contracts.PointTokenizer`."""
        return hidden

    def knowing(self, hidden: Float[Tensor, "B p D"], place: Float[Tensor, "B p 2"]) -> Float[Tensor, "B p D"]:
        """What is said of the visit, and its region."""
        return hidden + self.region(self.head.of(place))

    def _with_regions(
        self, tokens: PointTokens, paths: Paths, last: Int[Tensor, "B n"], index: Int[Tensor, "n"]
    ) -> PointTokens:
        """Tokens that know the region of the last place and whether an arrival or a departure is told."""
        place = paths.place.gather(1, last[..., None].expand(-1, -1, 2)) / self.points.usual[2]
        inputs = tokens.inputs + self.region(self.head.of(place.float())) + self.parity(index % 2)
        parts = (tokens.rows, tokens.place, tokens.time, tokens.metres, tokens.seconds)
        return PointTokens(inputs, *parts)


@final
class RegionHead(Head):
    """One of some regions; two numbers stand for the one whose centre is the nearest.

    Args:
        width: ``D``.
        regions: at most.
    """

    def __init__(self, width: int, regions: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, regions)
        self.register_buffer("centres", torch.zeros(regions, 2, dtype=torch.float64))
        self.register_buffer("used", torch.arange(regions) == 0)
        self.centres: Tensor
        self.used: Tensor

    def of(self, place: Float[Tensor, "B n 2"]) -> Int[Tensor, "B n"]:
        """The region of each place."""
        return torch.cdist(place.float(), self.centres.float()).argmin(-1)

    def loss(
        self, hidden: Float[Tensor, "B n D"], inputs: Float[Tensor, "B n D"], tokens: Float[Tensor, "B n 2"]
    ) -> Float[Tensor, "B n"]:
        """See :class:`~mobtk.contracts.Head`."""
        return F.cross_entropy(self.logits(hidden).flatten(0, 1), self.of(tokens).flatten(), reduction="none").view(
            tokens.shape[:2]
        )

    def logits(self, hidden: Float[Tensor, "B n D"]) -> Float[Tensor, "B n R"]:
        """Of each region; those that are not used cannot be."""
        return self.project(hidden).float().masked_fill(~self.used, -1e9)

    def sample(
        self,
        hidden: Float[Tensor, "B n D"],
        inputs: Float[Tensor, "B n D"],
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        share: Int[Tensor, "n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B n 2"]:
        """See :class:`~mobtk.contracts.Head`: the centre of a region."""
        drawn = draw(self.logits(hidden), temperature, top_k, top_p, min_p, share, generator)
        return self.centres[drawn].float()


def visit_trajectories(
    visits: PathLike | pd.DataFrame,
    out: PathLike,
    *,
    timezone: str = "UTC",
    most: int = 64,
    seed: int = 0,
    name: str = "visits",
    replace: bool = False,
) -> Trajectories:
    """Trajectories of visits, two points each: arrival and departure.

    Args:
        visits: a table, or a file like the ``stays.parquet`` that ``mobtk data visits`` writes: ``user``, ``time``, ``end``,
            ``lat``, ``lon``.
        out: folder of the trajectories, split by user.
        timezone: where the people are.
        most: visits of a trajectory.
        seed: of the split.
        name: of the dataset.
        replace: replace an existing folder.

    Raises:
        BadInput: a column is missing.
    """
    table = visits if isinstance(visits, pd.DataFrame) else pd.read_parquet(visits)
    if missing := [c for c in ("user", "time", "end", "lat", "lon") if c not in table]:
        raise BadInput(f"visits have a column {missing[0]!r}; make them with: mobtk data visits FILES -o visits")
    table = table.sort_values(["user", "time"])
    users, times, lats, lons = [], [], [], []
    for user, part in table.groupby("user", sort=False):
        moments = np.stack([_microseconds(part[c]) for c in ("time", "end")], 1)
        for first in range(0, len(part), most):
            piece = slice(first, first + most)
            if len(part["lat"].iloc[piece]) < 2:
                continue
            users.append(str(user))
            times.append(moments[piece].ravel())
            lats.append(part["lat"].to_numpy()[piece].repeat(2))
            lons.append(part["lon"].to_numpy()[piece].repeat(2))
    ends = np.array([t[-1] for t in times])
    split, _ = split_rows(np.array(users), ends, "user", (0.7, 0.1, 0.2), seed, "more users")
    made = pa.table({"user": users, "split": split, "time": times, "lat": lats, "lon": lons})
    return Trajectories.write(Path(out), TrajectoriesInfo(name, timezone=timezone), [made], replace=replace)


def made_up_visits(users: int, visits: int = 40, places: int = 8, seed: int = 0) -> pd.DataFrame:
    """Visits whose durations and travel times cannot be foretold: of an exponential distribution with a mean of two hours,
    and uniform from .1 to 1 hour. Places follow one another by chances that are the same for all.
    """
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(places, 0.3), size=places)
    lat, lon = from_local(rng.uniform(-15_000, 15_000, (places, 2)), (40.0, 116.0))
    rows = []
    for user in range(users):
        at, now = int(rng.integers(places)), 1_704_067_200.0
        for _ in range(visits):
            begin = now + 3600 * rng.uniform(0.1, 1.0)
            now = begin + 3600 * rng.exponential(2.0)
            rows.append((f"u{user:05d}", begin, now, lat[at], lon[at]))
            at = int(rng.choice(places, p=chances[at]))
    table = pd.DataFrame(rows, columns=["user", "time", "end", "lat", "lon"])
    for column in ("time", "end"):
        table[column] = pd.to_datetime((table[column] * 1e6).astype(np.int64), unit="us")
    return table


def _microseconds(moments: pd.Series) -> NDArray[np.int64]:
    """Since 1970 in UTC."""
    found: NDArray[np.int64] = (
        pd.to_datetime(moments, utc=True).dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
    )
    return found


def _on_earth(place: Float[Tensor, "n 2"]) -> tuple[list[float], list[float]]:
    lat, lon = from_local(place.numpy(), ORIGIN)
    return lat.tolist(), lon.tolist()
