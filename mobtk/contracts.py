"""The contracts: what a part of each kind promises. Read this file first.

A contract is an abstract class and holds no behaviour. A part implements one contract and is final: wrap a
part, never subclass one. What the data or a neighbour imposes is positional in the constructor (bounds of the
data, the width, the mapper); what the experimenter chooses is keyword-only with a default, and that signature
*is* the part's configuration.

What a part *declares* (the class variables below) is read before anything is built or trained, to refuse parts
that do not fit; the laws of :mod:`mobtk.testing` hold every part to what it promises and declares.

Axis letters: ``B`` batch, ``T`` steps, ``L`` tokens, ``D`` width, ``V`` vocabulary, ``E`` experts, ``N`` nodes, ``C``
channels, ``Q`` scales, ``S`` width of a node's embedding.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mobtk.schedule import Schedule

if TYPE_CHECKING:
    import geopandas

Cells = NDArray[np.int64]
Degrees = NDArray[np.float64]
Numbers = NDArray[np.float64]
State = dict[str, Any]
"""What a part keeps between groups while it generates. Starts as the part made it; changed in place."""


class SpatialMapper(ABC):
    """Places on the earth <-> cells ``0 .. n-1``, and coarser levels of the same cells.

    Attributes:
        n_cells: number of cells at each level, finest first, such as ``(900, 225, 64, 16)``.
    """

    nested: ClassVar[bool]
    """Declares that there can be coarser levels."""

    fits_box: ClassVar[bool] = False
    """Declares that :meth:`fit` asks only for the box of the points, so that some points that span it do for all."""

    example_options: ClassVar[Mapping[str, Any]] = {}
    """Options of :meth:`fit` for the laws, where it cannot do without any."""

    n_cells: tuple[int, ...]

    @classmethod
    @abstractmethod
    def fit(cls, lat: ArrayLike, lon: ArrayLike, **options: Any) -> "SpatialMapper":
        """The mapper that covers these points (WGS84 degrees)."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Plain data such that ``type(self)(**config)`` is the same mapper. Stored as ``mapper.json``."""

    @abstractmethod
    def encode(self, lat: ArrayLike, lon: ArrayLike) -> Cells:
        """Finest cell of each point, ``(n,)`` degrees -> ``(n,)``; -1 outside."""

    @abstractmethod
    def decode(self, cells: ArrayLike, level: int = 0) -> tuple[Degrees, Degrees]:
        """Latitude and longitude of the centres of cells of a level."""

    @abstractmethod
    def coarsen(self, cells: ArrayLike, level: int) -> Cells:
        """The cells of ``level`` that hold the given finest cells; -1 stays -1."""

    @abstractmethod
    def geometry(self, level: int = 0) -> "geopandas.GeoDataFrame":
        """The cells of a level, one row a cell in their order, as polygons in EPSG:4326."""


class Head(nn.Module, ABC):
    """From what a backbone says of a token to a distribution over tokens.

    ``inputs`` are what the backbone read at the same place, for heads that say a change relative to it.
    """

    @abstractmethod
    def loss(
        self,
        hidden: Float[Tensor, "B n D"],
        inputs: Float[Tensor, "B n D"],
        tokens: Shaped[Tensor, "B n *C"],
    ) -> Float[Tensor, "B n"]:
        """Negative log-likelihood of each token, in nats."""

    @abstractmethod
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
    ) -> Shaped[Tensor, "B n *C"]:
        """Draw each token from its distribution. Temperature 0 takes the most likely one.

        Tokens are drawn independently given ``hidden``; with ``share``, those of one sequence that have the same
        number there are drawn with the same random numbers, so that they agree as far as their distributions let them.
        """


class Tokenizer(nn.Module, ABC):
    """Sequences of cells <-> tokens, decided in the order of a schedule.

    Built as ``Tokenizer(mapper, steps, width, **options)``. ``width`` is the ``D`` of its inputs.

    Attributes:
        schedule: the groups in which the tokens are decided.
        codec: what the tokenizer's own loss trains; frozen and in eval mode while a generator trains on its
            tokens. ``None`` where nothing is learned before the generator.
        head: from backbone outputs to a distribution over tokens.
        given: leading channels of the inputs that are facts for the head, to which no condition is added.
        told: groups to whose inputs the condition is added even where it steers every layer.
    """

    learns: ClassVar[bool]
    """Declares that there is a ``codec`` to train first."""
    exact: ClassVar[bool]
    """Declares that ``decode(encode(x)) == x`` for every sequence, trained or not."""
    needs_levels: ClassVar[bool]
    """Declares that the mapper must have coarser levels."""

    schedule: Schedule
    codec: nn.Module | None
    head: Head
    given: int = 0
    told: frozenset[int] = frozenset({0})

    @abstractmethod
    def encode(self, sequences: Int[Tensor, "B T"]) -> Shaped[Tensor, "B L *C"]:
        """Cells at each step -> tokens."""

    @abstractmethod
    def decode(self, tokens: Shaped[Tensor, "B L *C"]) -> Int[Tensor, "B T"]:
        """Tokens -> cells at each step."""

    @abstractmethod
    def inputs(self, tokens: Shaped[Tensor, "B L *C"]) -> Float[Tensor, "B L D"]:
        """What the backbone reads when all tokens are given: group ``k`` depends on tokens of groups ``< k`` only."""

    @abstractmethod
    def next_inputs(self, tokens: Shaped[Tensor, "B l *C"], k: int, state: State) -> Float[Tensor, "B n D"]:
        """The inputs of group ``k`` alone, given the ``l`` tokens of all groups before it.

        Called for ``k = 0, 1, ...`` in turn with the same ``state``, an empty dictionary at first, in which the
        tokenizer may keep what it does not want to compute again. Equal to the slice of :meth:`inputs`.
        """

    @abstractmethod
    def loss(self, sequences: Int[Tensor, "B T"]) -> dict[str, Tensor]:
        """Terms of the codec's own loss, to be summed. Empty where nothing learns; a codec without parameters, which learns
        by averages while this is computed, needs no gradient.
        """

    @abstractmethod
    def health(self, sequences: Int[Tensor, "B T"]) -> dict[str, float]:
        """How well the tokens carry these sequences: at least ``accuracy``, the share of steps decoded right."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What is not the same for all sequences of a batch.

    Args:
        lengths: ``(B,)`` tokens that are there; what stands after them is padding, any finite numbers, which change nothing.
            All by default, and always with a state: what is generated group by group has one length.
        times: ``(B, n)`` moment of each token, in a unit of the tokenizer.
        places: ``(B, n, 2)`` place of each token, in another.
    """

    lengths: Int[Tensor, "B"] | None = None
    times: Float[Tensor, "B n"] | None = None
    places: Float[Tensor, "B n 2"] | None = None


class Backbone(nn.Module, ABC):
    """Mixes a sequence and keeps its shape. The output at group ``k`` depends on inputs of groups ``<= k`` only.

    Built as ``Backbone(width, **options)``.
    """

    uses_condition: ClassVar[bool]
    """Declares that ``cond`` steers every layer. Where it does not, the generator adds it to every input instead."""

    max_tokens: int | None = None
    """The longest sequence it can read, where there is a limit."""

    takes_scales: ClassVar[bool] = False
    """Declares an option ``scales``: into how many parts of equal width its features fall, coarse and fine; a forecaster
    sets it to those of its tokenizer."""

    takes_rows: ClassVar[bool] = False
    """Declares one more argument of ``forward``, by keyword: ``rows``, a :class:`Rows` or nothing."""

    needs_rows: bool = False
    """Whether it cannot do without moments or places that each sequence has for itself."""

    auxiliary_loss: Tensor | None = None
    """What the last training pass adds to the loss (balance of experts), where there is such a thing."""

    @abstractmethod
    def forward(
        self,
        x: Float[Tensor, "B n D"],
        schedule: Schedule,
        cond: Float[Tensor, "B D"] | None = None,
        state: State | None = None,
    ) -> Float[Tensor, "B n D"]:
        """All tokens at once, or, with a ``state``, those of the next group, or groups; the results are equal."""

    @abstractmethod
    def new_state(self, batch: int, schedule: Schedule) -> State:
        """Room for a generation of ``batch`` sequences, allocated once for the whole schedule."""

    def mixture_loss(
        self, outputs: Float[Tensor, "M n D"], experts: Int[Tensor, "M"], n_experts: int
    ) -> Float[Tensor, ""] | None:
        """What experts of this kind ask of their outputs, while training as a mixture; ``None`` where they ask nothing.

        ``experts`` says which of the ``n_experts`` made each output (the best, where several did).
        """
        return None


@dataclass
class Routing:
    """Which experts serve which sequence.

    Args:
        weights: ``(M, K)``, rows sum to 1.
        experts: ``(M, K)``, the ``K`` different experts of each of the ``M`` sequences.
        loss: a term for the training loss that keeps the experts in balance, or ``None``.
    """

    weights: Float[Tensor, "M K"]
    experts: Int[Tensor, "M K"]
    loss: Float[Tensor, ""] | None = None


class Router(nn.Module, ABC):
    """Which experts serve which sequence.

    Built as ``Router(n_experts, width, **options)``, with the width of what it routes by: the entity, or the features.
    """

    max_experts: ClassVar[int | None]
    """Declares the largest number of experts it can serve."""
    needs_entity: ClassVar[bool]
    """Declares that it routes by an embedding of the entity (a home, a sensor)."""
    learns: ClassVar[bool] = True
    """Declares that the weights it gives carry a gradient to all of its own."""

    @abstractmethod
    def forward(self, entity: Float[Tensor, "M S"] | None, features: Float[Tensor, "M n D"]) -> Routing:
        """Route by the entity's embedding, or by the features of the first group of its sequence."""


class FieldTokenizer(nn.Module, ABC):
    """The history of a field -> tokens of each of its nodes, all known at once.

    Built as ``FieldTokenizer(history, channels, width, **options)`` with ``history`` the steps ``T`` it reads.

    Attributes:
        schedule: one group of ``L`` tokens.
        scales: ``Q``, the scales of a token, each of width ``D``; ``Q`` times ``D`` is the width.
    """

    schedule: Schedule
    scales: int

    @abstractmethod
    def forward(self, history: Float[Tensor, "B T N C"]) -> Float[Tensor, "B L N D Q"]:
        """Tokens of each node; scaled values in, without gaps."""


class Mixer(nn.Module, ABC):
    """Mixes over the nodes of a field: graph convolutions and the like; what it returns is added to what it was given.

    Built as ``Mixer(graph, width, scales, entity, **options)``: the weights of the edges ``(N, N)`` where there is a graph,
    ``D``, ``Q`` and ``S``.
    """

    needs_graph: ClassVar[bool]
    """Declares that it does nothing without a graph of the nodes."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "B L N D Q"], entity: Float[Tensor, "N S"]) -> Float[Tensor, "B L N D Q"]:
        """Mix over the ``N`` nodes; ``entity`` holds an embedding of each."""


@dataclass(frozen=True, eq=False)
class Paths:
    """Trajectories of continuous points as a model reads them; what stands after their lengths, or is hidden, is not looked
    at.

    Args:
        place: ``(B, n, 2)`` float64 metres east and north of an origin, which is the first point by default.
        time: ``(B, n)`` float64 seconds since the first point.
        start: ``(B,)`` float64 seconds of the first point since Monday, 0 o'clock, by local clocks.
        hidden_place, hidden_time: ``(B, n)`` what is to be foretold; of the first point, nothing.
        lengths: ``(B,)`` points that are there.
    """

    place: Float[Tensor, "B n 2"]
    time: Float[Tensor, "B n"]
    start: Float[Tensor, "B"]
    hidden_place: Bool[Tensor, "B n"]
    hidden_time: Bool[Tensor, "B n"]
    lengths: Int[Tensor, "B"]


@dataclass(frozen=True, eq=False)
class PointTokens:
    """What a backbone reads of points, and what the numbers of the heads mean: a place is ``anchor + unit * number``, a
    moment ``anchor + unit * sinh(number)``.

    Args:
        inputs: ``(B, l, D)``, of ``patch`` points each.
        rows: how long they are, when and where.
        place, time: anchors of each point, ``(B, l * patch, 2)`` metres and ``(B, l * patch)`` seconds.
        metres, seconds: units of each point, ``(B, l * patch)``, above 0.
    """

    inputs: Float[Tensor, "B l D"]
    rows: Rows
    place: Float[Tensor, "B p 2"]
    time: Float[Tensor, "B p"]
    metres: Float[Tensor, "B p"]
    seconds: Float[Tensor, "B p"]


class PointTokenizer(nn.Module, ABC):
    """Continuous points -> tokens, and what is told of them -> points.

    Built as ``PointTokenizer(width, **options)``.

    Attributes:
        patch: points of a token; ``n`` is a multiple of it.
        together: points that belong together: pieces of trajectories begin at a multiple of it.
        place_head: from what the backbone says of a point to its place, two numbers.
        time_head: and to its moment, one number.
    """

    patch: int
    together: int = 1
    place_head: Head
    time_head: Head

    @abstractmethod
    def fit(self, paths: Paths) -> None:
        """Measure units on some of the training split, before anything is learned; they are kept with the weights."""

    @abstractmethod
    def at_once(self, paths: Paths) -> PointTokens:
        """All tokens as one group, made of what is shown before and after each point."""

    @abstractmethod
    def onward(self, paths: Paths, first: int, last: int, state: State) -> PointTokens:
        """Tokens ``first`` to ``last - 1``, each made of all points before it and of the shown moments of its own, not of
        their places.

        Called with an empty ``state`` at first, and then for the tokens that follow, in which the tokenizer may keep what it
        does not want to compute again.
        """

    @abstractmethod
    def apart(self, hidden: Float[Tensor, "B l D"]) -> Float[Tensor, "B p D"]:
        """What the backbone says of each token -> what it says of each point, for the heads."""

    @abstractmethod
    def knowing(self, hidden: Float[Tensor, "B p D"], place: Float[Tensor, "B p 2"]) -> Float[Tensor, "B p D"]:
        """What the time head reads of a point whose place is these numbers of the place head, or not hidden."""


@dataclass(frozen=True, eq=False)
class Hidden:
    """What of a trajectory of ``n`` points is to be foretold, and what is not there at all.

    Args:
        place: ``(n,)`` bool, points whose place is hidden.
        time: ``(n,)`` bool, points whose moment is hidden.
        absent: ``(n,)`` bool, points that are neither shown nor foretold.
    """

    place: NDArray[np.bool_]
    time: NDArray[np.bool_]
    absent: NDArray[np.bool_]


class Mask(ABC):
    """Chooses what of a trajectory is hidden: a task is a mask. Built as ``Mask(**options)``."""

    least: ClassVar[int] = 3
    """Declares how many points a trajectory must have."""

    @abstractmethod
    def __call__(self, time: Numbers, place: Numbers, rng: np.random.Generator) -> Hidden:
        """Choose for one trajectory of :attr:`least` points or more: ``(n,)`` seconds and ``(n, 2)`` metres, in order. Its
        first point stays as it is.
        """


CONTRACTS: Mapping[str, tuple[type, ...]] = {
    "mapper": (SpatialMapper,),
    "tokenizer": (Tokenizer, FieldTokenizer, PointTokenizer),
    "backbone": (Backbone,),
    "router": (Router,),
    "mixer": (Mixer,),
    "mask": (Mask,),
}
"""The contracts of which a part of each kind signs one: tokenizers are of sequences, of fields, or of points."""
