"""A person's week as it is decided, pass by pass: how sure each hour is at each level, beside other models' way there."""

from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import torch
from msgspec import Struct, to_builtins
from numpy.typing import NDArray
from torch import Tensor

from mobtk._version import __version__
from mobtk.contracts import Cells, SpatialMapper
from mobtk.errors import BadInput
from mobtk.generation import how_drawn
from mobtk.report import figures
from mobtk.runs import Run, open_run
from mobtk.storage import PathLike, new_file, write_text

DRAWN = 32
"""Continuations that are drawn from each moment on, to see what is open still."""
MOST = 25
"""Frames; of more passes some are left out."""
OTHERS = "#8a8f98"
"""Of places that have no colour of their own."""


class Frame(Struct):
    """What is known after some passes.

    Args:
        passes: how many.
        tokens: that are decided.
        cells: likeliest finest cell of each step.
        shares: of each level, in percent, how many of the continuations agree with the likeliest cell of each step.
        entropy: of each level, mean over the steps, in bits.
        bits: of each step, at the finest level.
        sure: cells of the finest level and the percent of all steps that continuations spend there, most first.
    """

    passes: int
    tokens: int
    cells: list[int]
    shares: list[list[int]]
    entropy: list[float]
    bits: list[float]
    sure: list[tuple[int, float]]


class Unfolding(Struct):
    """The frames of one model.

    Args:
        title: what decides.
        schedule: how many tokens in how many passes.
        passes: all of them.
        frames: from nothing to everything.
    """

    title: str
    schedule: str
    passes: int
    frames: list[Frame]


@torch.inference_mode()
def unfold(run: Run | PathLike, *, person: int = 0, seed: int = 0, drawn: int = DRAWN, most: int = MOST) -> Unfolding:
    """How one week comes about: it is drawn once, and from frame to frame more of its passes are kept and the rest is drawn
    again, several times.

    Args:
        run: of a generator, trained.
        person: whose traits, a row of the test split.
        seed: of everything that is drawn.
        drawn: continuations of each frame.
        most: frames.

    Raises:
        BadInput: it is no generator, there is no such person, or fewer than two continuations or frames are asked for.
    """
    run = open_run(run, "generate")
    dataset, model, mapper = run.dataset(), run.model(), run.mapper()
    rows = dataset.rows("test")
    if not 0 <= person < len(rows) or drawn < 2 or most < 2:
        raise BadInput(f"person is 0 to {len(rows) - 1}, and drawn and most are 2 or more, not {person}, {drawn} and {most}")
    traits = torch.from_numpy(dataset.traits(run.recipe.traits)[rows[person : person + 1]]) if run.recipe.traits else None
    sampling = how_drawn(run) | {"generator": torch.Generator().manual_seed(seed)}

    def draw(n: int, given: Tensor | None = None) -> Tensor:
        return model.draw(None if traits is None else traits.expand(n, -1), n, given=given, **sampling)

    tokens = draw(1)
    schedule = model.tokenizer.schedule
    stops = [0, *(group.stop for group in schedule.groups())]
    keep = sorted({int(i) for i in np.linspace(0, len(stops) - 1, min(most, len(stops)))})
    frames = []
    for i in keep:
        told = draw(drawn, tokens[:, : stops[i]].repeat_interleave(drawn, 0) if stops[i] else None)
        frames.append(_frame(i, stops[i], model.tokenizer.decode(told).numpy(), mapper))
    names = (part.name.removeprefix("mobtk.") for part in (run.recipe.tokenizer, run.recipe.backbone))
    title = f"{schedule.family.capitalize()}: {' and '.join(names)}"
    return Unfolding(title, f"{schedule.n_tokens} tokens in {schedule.n_groups} passes", schedule.n_groups, frames)


def _frame(passes: int, tokens: int, cells: Cells, mapper: SpatialMapper) -> Frame:
    shares, entropy = [], []
    likeliest: NDArray[np.int64] = cells[0]
    of_step = np.zeros(cells.shape[1])
    for level in range(len(mapper.n_cells)):
        at = mapper.coarsen(cells.ravel(), level).reshape(cells.shape)
        best, share, bits = _agreement(at)
        likeliest = best if level == 0 else likeliest
        shares.append((100 * share).round().astype(int).tolist())
        entropy.append(round(float(bits.mean()), 3))
        of_step = bits if level == 0 else of_step
    spent = np.bincount(cells.ravel(), minlength=mapper.n_cells[0]) / cells.size
    busy = np.argsort(-spent)[: (spent > 0).sum()]
    sure = [(int(c), round(100 * float(spent[c]), 2)) for c in busy]
    return Frame(passes, tokens, likeliest.tolist(), shares, entropy, of_step.round(2).tolist(), sure)


def _agreement(cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each step (column): the commonest cell, its share, and the entropy in bits."""
    n, steps = cells.shape
    best, share, bits = np.zeros(steps, np.int64), np.zeros(steps), np.zeros(steps)
    for step in range(steps):
        names, counts = np.unique(cells[:, step], return_counts=True)
        p = counts / n
        best[step], share[step], bits[step] = names[counts.argmax()], p.max(), -(p * np.log2(p)).sum()
    return best, share, bits


def level_names(n: int) -> list[str]:
    """What the levels of a map are called, finest first."""
    names = {1: ["cell"], 2: ["cell", "city"], 3: ["cell", "district", "city"]}
    return names.get(n, ["cell", "quarter", "district", "city", *(f"level {i}" for i in range(4, n))][:n])


def animate(runs: Sequence[Run | PathLike], out: PathLike, *, person: int = 0, seed: int = 0, drawn: int = DRAWN) -> None:
    """The weeks of a person as several models decide them, side by side. ``mobtk animate`` does the same.

    Args:
        runs: of generators for the same dataset.
        out: a page (``.html``) with play, step and scrub, or a moving picture (``.gif``).
        person: whose traits, a row of the test split.
        seed: of everything that is drawn.
        drawn: continuations of each frame.

    Raises:
        BadInput: the runs are of different data, or ``out`` is neither.
    """
    found = [open_run(run, "generate") for run in runs]
    if not found:
        raise BadInput("there is nothing to animate; name one run or more")
    if any(run.data["mapper"] != found[0].data["mapper"] or run.data["steps"] != found[0].data["steps"] for run in found):
        raise BadInput("runs side by side are of the same map and as many steps; name runs for one dataset")
    kind = str(out).rpartition(".")[2].lower()
    if kind not in ("html", "gif"):
        raise BadInput(f"{out} is neither a page (.html) nor a moving picture (.gif)")
    unfoldings = [unfold(run, person=person, seed=seed, drawn=drawn) for run in found]
    mapper, day = found[0].mapper(), found[0].data["steps_per_day"]
    shapes, events = _shapes(mapper), found[0].dataset().info.step == "event"
    if kind == "gif":
        _gif(out, unfoldings, shapes, day, not events)
        return
    steps, levels = found[0].data["steps"], level_names(len(mapper.n_cells))
    unit = "visit" if events else "hour" if day == 24 else "step"
    frames = [frame for unfolding in unfoldings for frame in unfolding.frames]
    used = {cell for frame in frames for cell, _ in frame.sure} | {cell for frame in frames for cell in frame.cells}
    data = {
        "unfoldings": to_builtins(unfoldings), "day": day, "levels": levels,
        "shapes": {c: shapes[c] for c in sorted(used)}, "colours": [_colours(u) for u in unfoldings],
    }  # fmt: skip
    shelf = jinja2.PackageLoader("mobtk.report", ".")
    environment = jinja2.Environment(loader=shelf, autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.get_template("animation.html.jinja").render(
        title="A week, as it is decided", unfoldings=unfoldings, levels=levels, days=-(-steps // day), drawn=drawn,
        unit=unit, version=__version__, data=data,
    )  # fmt: skip
    write_text(out, page)


def _shapes(mapper: SpatialMapper) -> list[list[list[list[float]]]]:
    """Rings of each finest cell, in a square from 0 to 1, north up."""
    frame = mapper.geometry()
    west, south, east, north = frame.total_bounds
    wide = (east - west) * np.cos(np.radians((south + north) / 2))
    scale = max(wide, north - south)
    found = []
    for shape in frame.geometry:
        parts = getattr(shape, "geoms", [shape])
        rings = []
        for part in parts:
            xy = np.array(part.exterior.coords)
            x = (xy[:, 0] - west) / (east - west) * wide / scale
            rings.append(np.stack([x, (north - xy[:, 1]) / scale], 1).round(4).tolist())
        found.append(rings)
    return found


def _colours(unfolding: Unfolding) -> dict[int, str]:
    """A colour for each place that is anywhere the likeliest: one of its own, for everybody to tell apart, where most of the
    week is spent in the end, and grey for the others.
    """
    places, hours = np.unique(unfolding.frames[-1].cells, return_counts=True)
    ranked = places[np.argsort(-hours, kind="stable")].tolist()
    seen = {cell for frame in unfolding.frames for cell in frame.cells}
    own = dict(zip(ranked, figures.COLOURS, strict=False))
    return {cell: own.get(cell, OTHERS) for cell in sorted(seen)}


def _gif(out: PathLike, unfoldings: Sequence[Unfolding], shapes: Sequence[Any], day: int, clock: bool) -> None:
    """The frames as pictures, one after the other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Polygon
    from PIL import Image

    longest = max(len(u.frames) for u in unfoldings)
    pictures = []
    for k in range(longest):
        figure = Figure(figsize=(4.2 * len(unfoldings), 6.2), dpi=80)
        for i, u in enumerate(unfoldings):
            f = u.frames[round(k / (longest - 1) * (len(u.frames) - 1))]
            ax = figure.add_axes(((i + 0.05) / len(unfoldings), 0.34, 0.9 / len(unfoldings), 0.56))
            top = max(share for _, share in f.sure)
            for cell, share in f.sure:
                for ring in shapes[cell]:
                    ax.add_patch(Polygon(ring, color="#08306b", alpha=0.08 + 0.92 * (share / top) ** 0.5, linewidth=0))
            ax.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], aspect="equal")
            ax.set_title(f"{u.title}\nafter {f.passes} of {u.passes} passes: {f.entropy[0]:.2f} bits open", fontsize=9)
            week = figure.add_axes(((i + 0.13) / len(unfoldings), 0.05, 0.82 / len(unfoldings), 0.25))
            days = -(-len(f.cells) // day)
            image = np.ones((days * day, 4))
            colours = _colours(u)
            image[: len(f.cells), :3] = [to_rgb(colours[c]) for c in f.cells]
            image[: len(f.cells), 3] = (np.array(f.shares[0]) / 100) ** 1.5
            week.imshow(image.reshape(days, day, 4), aspect="auto", interpolation="nearest")
            quarters = range(0, day, max(1, day // 4)) if clock else ()
            week.set_xticks(quarters, [f"{24 * h // day}:00" for h in quarters])
            week.set_yticks(range(days), [f"day {d + 1}" for d in range(days)] if clock and days < 15 else [""] * days)
            week.tick_params(labelsize=7, length=2)
        FigureCanvasAgg(figure).draw()
        drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()))  # type: ignore[attr-defined]
        pictures.append(drawn.convert("P", palette=Image.Palette.ADAPTIVE))
    with new_file(out) as draft:
        still = [500] * (longest - 1) + [2500]
        pictures[0].save(draft, format="GIF", save_all=True, append_images=pictures[1:], duration=still, loop=0)
