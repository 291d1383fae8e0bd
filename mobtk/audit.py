"""The privacy of a trained generator: does what it makes, or what it knows, give away who it was trained on?

Members are sequences of the training split; outsiders are as many sequences of people it never saw. Everything is
said beside what outsiders themselves would score, because people are alike: a week at home is a copy of
other people's weeks at home, and no secret.
"""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from mobtk import kernels
from mobtk._version import __version__
from mobtk.data.canaries import CANARY, draw_canaries
from mobtk.data.dataset import Dataset
from mobtk.errors import BadInput
from mobtk.generation import read_generated
from mobtk.models.generator import Generator
from mobtk.runs import Run, find_device, open_run
from mobtk.storage import PathLike

NEAR = 0.05
"""Share of steps that may differ in a near duplicate."""
KS = (1, 2, 3, 4)
REFERENCES = 2000
"""Canaries that were not planted, among which a planted one is ranked."""
FIGURES = {
    "copies": "share of generated sequences that equal a member's to the step",
    "copies_of_outsiders": "the same share among outsiders: how often people are alike by chance",
    "near_copies": f"share of generated sequences that differ from a member's in at most {NEAR:.0%} of the steps",
    "near_copies_of_outsiders": "the same share among outsiders",
    "closer_to_members": "share of generated sequences whose nearest among as many members and outsiders is a member; 0.5 "
    "where neither the model nor the traits it was given know the members",
    "closer_to_members_error": "its standard deviation if members and outsiders were dealt at random",
    "distance_to_members": "median share of steps in which a generated sequence differs from the nearest member",
    "distance_to_outsiders": "the same to the nearest outsider",
    "distance_attack_auc": "how well members are told from outsiders by their distance to the generated sequences: the "
    "chance that a member is nearer than an outsider; 0.5 is guessing",
    "distance_attack_error": "its standard error",
    "distance_attack_tpr": "share of members that attack finds while it accuses 1 % of outsiders",
    "likelihood_attack_auc": "the same, by the likelihood that the model gives to their tokens (whoever has the weights)",
    "likelihood_attack_error": "its standard error",
    "likelihood_attack_tpr": "share of members that attack finds while it accuses 1 % of outsiders",
    "exposure": "mean bits by which planted canaries are likelier than others drawn alike: 1.4 is chance, 11 is the most",
    "canaries": "how many were planted",
}
"""What each figure of an audit means."""
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt
}  # fmt: skip


def audit(
    run: Run | PathLike,
    generated: PathLike | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    batch: int = 128,
    device: str = "auto",
    fail_if: Sequence[str] = (),
) -> dict[str, Any]:
    """Audit a trained run and a population it generated. ``mobtk audit`` does the same.

    Distances are shares of steps in another cell. The distance attack knows only what was generated (Hilprecht et al. 2019,
    https://doi.org/10.2478/popets-2019-0067); the likelihood attack has the model (Yeom et al. 2018,
    https://arxiv.org/abs/1709.01604). True positives at 1 % false ones: Carlini et al. 2022,
    https://arxiv.org/abs/2112.03570. Uniqueness: de Montjoye et al. 2013, https://doi.org/10.1038/srep01376. Exposure:
    Carlini et al. 2019, https://arxiv.org/abs/1802.08232; where there are canaries
    (:func:`mobtk.data.canaries.plant`).

    Args:
        run: a trained run or its folder.
        generated: the file; ``generated.parquet`` in the run's folder by default.
        n: members, outsiders and generated sequences at most, each, one a person; 2,000 or as many as there are. The
            distance attack looks at all that were generated.
        seed: of the choice of them.
        batch: sequences at once through the model.
        device: ``auto``, ``cpu`` or ``cuda``.
        fail_if: conditions such as ``likelihood_attack_auc>0.6``; those that hold are named in the result.

    Returns:
        ``figures`` by name (:data:`FIGURES` says what they mean), ``uniqueness``, ``failed``, ``summary``.

    Raises:
        BadInput: there are no outsiders, or a condition names no figure.
    """
    run = open_run(run, "generate")
    conditions = [_condition(text) for text in fail_if]
    if n is not None and n < 10:
        raise BadInput(f"an audit wants at least 10 sequences a side, not n={n}")
    dataset = run.dataset()
    file = generated if generated is not None else run.path / "generated.parquet"
    made = read_generated(file, dataset).astype(np.int32)
    rng = np.random.default_rng(seed)
    canary = np.char.startswith(dataset.users.astype(str), CANARY)
    train = dataset.rows("train")
    planted = train[canary[train]]
    known = {*FIGURES} - (set() if len(planted) else {"exposure", "canaries"})
    unknown = [name for name, _, _ in conditions if name not in known]
    if unknown:
        raise BadInput(f"--fail-if names {unknown[0]!r}, which is none of {', '.join(f for f in FIGURES if f in known)}")
    inside, outside = train[~canary[train]], dataset.rows("test")
    outside = outside[~canary[outside] & ~np.isin(dataset.users[outside], dataset.users[inside])]
    inside, outside = (_one_each(dataset.users, rows, rng) for rows in (inside, outside))
    if len(outside) < 10 or len(inside) < 10:
        raise BadInput(
            f"an audit compares with people the model never saw, and dataset {dataset.path} has {len(outside):,} "
            "of them in its test split; split it by user, with enough people"
        )
    size = min(n or 2000, len(inside), len(outside))
    members, outsiders = rng.choice(inside, size, replace=False), rng.choice(outside, size, replace=False)
    cells = np.ascontiguousarray(dataset.cells, np.int32)
    drawn = made[rng.permutation(len(made))[:size]]
    figures = _copies(drawn, cells[train], cells[members], cells[outsiders], rng)
    figures |= _distance_attack(made, cells[members], cells[outsiders], rng)
    model = run.model().to(find_device(device))
    surprise = _Surprise(model, dataset, run.recipe.traits, batch)
    figures |= _attack("likelihood_attack", -surprise(members), -surprise(outsiders), rng)
    if len(planted):
        figures["exposure"] = _exposure(surprise, dataset, planted, rng)
        figures["canaries"] = len(np.unique(dataset.users[planted]))
    failed = [text for text, (name, test, limit) in zip(fail_if, conditions, strict=True) if test(figures[name], limit)]
    result = {
        "n": size,
        "members": len(inside),
        "generated": len(made),
        "seed": seed,
        "dataset": {"path": str(dataset.path), "name": dataset.info.name},
        "figures": figures,
        "meaning": {name: FIGURES[name] for name in figures},
        "uniqueness": {
            name: unique_by_points(part, KS, rng) for name, part in (("members", cells[members]), ("generated", drawn))
        },
        "failed": failed,
        "summary": _summary(figures | {"n": size}),
        "mobtk": __version__,
    }
    run.write_result("audit", result)
    return result


def _condition(text: str) -> tuple[str, Callable[[float, float], bool], float]:
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+\d.eE]+)\s*", text)
    try:
        assert match is not None
        return match[1], OPERATORS[match[2]], float(match[3])
    except (AssertionError, ValueError):
        raise BadInput(f"--fail-if {text!r} is no condition such as 'likelihood_attack_auc>0.6'") from None


def _one_each(users: NDArray[Any], rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A random row of each user, so that rows are independent."""
    rows = rng.permutation(rows)
    return rows[np.unique(users[rows].astype(str), return_index=True)[1]]


def _copies(
    generated: NDArray[np.int32], training: NDArray[np.int32], members: NDArray[np.int32], outsiders: NDArray[np.int32],
    rng: np.random.Generator,
) -> dict[str, float]:  # fmt: skip
    """Copies are looked for among all of the training split, distances compared with as many of each side."""
    steps = training.shape[1]
    found: dict[str, float] = {}
    for name, some in (("", generated), ("_of_outsiders", outsiders)):
        away = kernels.nearest_sequence(some, training)[1] / steps
        found |= {f"copies{name}": float((away == 0).mean()), f"near_copies{name}": float((away <= NEAR).mean())}
    order = rng.permutation(len(members) + len(outsiders))  # among equals the nearest is any
    is_member = (order < len(members)).astype(float)
    nearest = kernels.nearest_sequence(generated, np.concatenate([members, outsiders])[order])[0]
    chance = [rng.permutation(is_member)[nearest].mean() for _ in range(200)]
    return found | {
        "closer_to_members": float(is_member[nearest].mean()),
        "closer_to_members_error": float(np.std(chance)),
        "distance_to_members": float(np.median(kernels.nearest_sequence(generated, members)[1] / steps)),
        "distance_to_outsiders": float(np.median(kernels.nearest_sequence(generated, outsiders)[1] / steps)),
    }


def _distance_attack(
    generated: NDArray[np.int32], members: NDArray[np.int32], outsiders: NDArray[np.int32], rng: np.random.Generator
) -> dict[str, float]:
    near = [-kernels.nearest_sequence(side, generated)[1].astype(float) for side in (members, outsiders)]
    return _attack("distance_attack", near[0], near[1], rng)


def _attack(
    name: str, members: NDArray[np.float64], outsiders: NDArray[np.float64], rng: np.random.Generator
) -> dict[str, float]:
    """Strength of an attack by a score that is higher for members; the error by resampling both sides."""
    truth = np.repeat([1, 0], [len(members), len(outsiders)])
    score = np.concatenate([members, outsiders])
    false, true, _ = roc_curve(truth, score, drop_intermediate=False)
    again = []
    for _ in range(100):
        a, b = (rng.choice(side, len(side)) for side in (members, outsiders))
        again.append(roc_auc_score(truth, np.concatenate([a, b])))
    return {
        f"{name}_auc": float(roc_auc_score(truth, score)),
        f"{name}_error": float(np.std(again)),
        f"{name}_tpr": float(np.interp(0.01, false, true)),
    }


class _Surprise:
    """Negative log-likelihood of whole sequences, nats."""

    def __init__(self, model: Generator, dataset: Dataset, traits: Sequence[str], batch: int) -> None:
        self.model, self.batch = model, batch
        self.cells, self.traits = dataset.cells, dataset.traits(traits)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.of(self.cells[rows], self.traits[rows])

    @torch.inference_mode()
    def of(self, cells: NDArray[Any], traits: NDArray[np.int64]) -> NDArray[np.float64]:
        device = next(self.model.parameters()).device
        found = []
        for first in range(0, len(cells), self.batch):
            part = torch.from_numpy(cells[first : first + self.batch].astype(np.int64)).to(device)
            known = torch.from_numpy(traits[first : first + self.batch]).to(device) if traits.shape[1] else None
            found.append(self.model.token_losses(self.model.tokenizer.encode(part), known).sum(1).double().cpu().numpy())
        return np.concatenate(found)


def _exposure(surprise: _Surprise, dataset: Dataset, rows: NDArray[np.int64], rng: np.random.Generator) -> float:
    """Mean over canaries of log2 of the references over log2 of the rank among them, all given the canary's traits."""
    _, first = np.unique(dataset.users[rows], return_index=True)
    bits = []
    for row in rows[first]:
        others = draw_canaries(REFERENCES, dataset.info.steps, dataset.mapper().n_cells[0], rng)
        traits = np.repeat(surprise.traits[row : row + 1], REFERENCES, axis=0)
        rank = 1 + np.count_nonzero(surprise.of(others, traits) < surprise(np.array([row])))
        bits.append(np.log2(REFERENCES + 1) - np.log2(rank))
    return float(np.mean(bits))


def unique_by_points(cells: NDArray[Any], ks: Sequence[int], rng: np.random.Generator) -> dict[str, float]:
    """Share of sequences that nobody else agrees with at ``k`` steps of theirs drawn at random.

    Args:
        cells: ``(N, T)``.
        ks: numbers of steps.
        rng: draws them.
    """
    found = {}
    for k in ks:
        steps = rng.permuted(np.tile(np.arange(cells.shape[1]), (len(cells), 1)), axis=1)[:, :k]
        alone = [
            np.count_nonzero((cells[:, at] == row[at]).all(1)) == 1 for row, at in zip(cells, steps, strict=True)
        ]  # fmt: skip
        found[str(k)] = float(np.mean(alone))
    return found


def _summary(figures: dict[str, float]) -> str:
    """The audit in plain words; a finding counts beyond three standard errors."""
    found = []
    chance = max(figures["copies_of_outsiders"], 1 / figures["n"])
    if figures["copies"] - chance > 3 * (2 * chance * (1 - chance) / figures["n"]) ** 0.5:
        found.append(f"{figures['copies']:.1%} of the generated sequences are copies of training sequences, "
                     f"against {figures['copies_of_outsiders']:.1%} that are so by chance")  # fmt: skip
    if figures["closer_to_members"] > 0.5 + 3 * figures["closer_to_members_error"]:
        found.append(
            f"generated sequences lie nearer to training people than to others ({figures['closer_to_members']:.0%})"
        )
    for attack, who in (("distance_attack", "the generated data"), ("likelihood_attack", "the model")):
        if figures[f"{attack}_auc"] > 0.5 + 3 * figures[f"{attack}_error"]:
            found.append(
                f"whoever has {who} can tell training people from others in {figures[f'{attack}_auc']:.0%} of pairs, and "
                f"is sure of {figures[f'{attack}_tpr']:.1%} of them (1 % would be chance)"
            )
    if "exposure" in figures and figures["exposure"] > 1.44 + 3 * 1.44 / figures["canaries"] ** 0.5:
        found.append(f"planted canaries are remembered ({figures['exposure']:.1f} bits)")
    if not found:
        return "No leak was found: training people cannot be told from others by any of the attacks tried."
    return "; ".join(found)[:1].upper() + "; ".join(found)[1:] + "."


def table(result: dict[str, Any]) -> str:
    """An audit as text."""
    lines = [f"{name:<26}{value:>9.4f}  {FIGURES[name]}" for name, value in result["figures"].items()]
    for name, shares in result["uniqueness"].items():
        told = ", ".join(f"{share:.0%} by {k}" for k, share in shares.items())
        lines.append(f"unique among {name}, by points: {told}")
    lines += ["", result["summary"]]
    lines += [f"failed: {condition}" for condition in result["failed"]]
    return "\n".join(lines)
