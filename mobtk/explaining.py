"""The dataflow of an assembled model: what each box is given and gives, who supplied it, and what it costs."""

import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec import Struct, field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mobtk.backbones.selective_scan import counted
from mobtk.data.trajectories import Trajectories
from mobtk.errors import BadInput
from mobtk.models.completer import Completer
from mobtk.models.forecaster import Forecaster
from mobtk.models.generator import Generator
from mobtk.models.moe import MixtureOfExperts
from mobtk.models.paths import collate, hide
from mobtk.plugins import loaded, registry
from mobtk.runs import Run, build
from mobtk.schedule import Schedule
from mobtk.storage import PathLike, new_file

EXAMPLES = 100
"""Size of the built-in data on which a recipe without data of its own is put together."""


class Box(Struct):
    """One step of a model.

    Args:
        name: what it is.
        says: what it does, a sentence.
        given: shapes that come in, for one sequence, field window or trajectory.
        gives: shapes that go out.
        part: full name of the part, where it is one.
        plugin: where that came from.
        parameters: numbers that are learned in it.
        flop: floating-point operations of its matrix products and scans, in one pass over everything.
        state: bytes that it keeps while it generates.
    """

    name: str
    says: str
    given: str
    gives: str
    part: str = ""
    plugin: str = ""
    parameters: int = 0
    flop: int = 0
    state: int = 0


class Dataflow(Struct):
    """The boxes of a model, in the order of the data.

    Args:
        title: the recipe or run.
        task: what it does.
        schedule: how many tokens in how many passes.
        boxes: in order; each is given what the one before gives, and the sides named in ``aside``.
        aside: boxes that are not in the row: by name, to which box they go.
    """

    title: str
    task: str
    schedule: str
    boxes: list[Box]
    aside: dict[str, str] = field(default_factory=dict)


def explain(what: Run | PathLike, *, data: PathLike | None = None, changes: Mapping[str, Any] | None = None) -> Dataflow:
    """The dataflow of a run, or of a recipe by name or file. ``mobtk explain`` does the same.

    Args:
        what: a run, its folder, or a recipe.
        data: what a recipe is put together for; a little of the built-in data if not given.
        changes: settings of a recipe to change, as for :func:`mobtk.build`.

    Raises:
        BadInput, PartMismatch, UnknownPart: as :func:`mobtk.build` does.
    """
    if isinstance(what, Run) or (Path(what) / "recipe.toml").is_file():
        if data is not None or changes:
            raise BadInput(
                f"{what} is a run, whose data and settings are made; leave --data and --set out, or name a recipe"
            )
        return _of_run(what if isinstance(what, Run) else Run(what), str(what if not isinstance(what, Run) else what.path))
    with tempfile.TemporaryDirectory() as folder:
        run = build(what, Path(folder) / "run", data=data, weeks=EXAMPLES, changes=changes)
        return _of_run(run, str(what))


def _of_run(run: Run, title: str) -> Dataflow:
    flows = {"generate": _generator, "forecast": _forecaster, "complete": _completer}
    with torch.no_grad():
        found = flows[run.recipe.task](run)
    found.title = title
    return found


def _generator(run: Run) -> Dataflow:
    model: Generator = run.model(weights=False)
    schedule, tokenizer, steps = model.tokenizer.schedule, model.tokenizer, run.data["steps"]
    places = run.mapper().n_cells
    week = torch.arange(steps)[None] % places[0]
    levels = " > ".join(f"{n:,}" for n in places)
    boxes = [_box(run, "mapper", "latitude, longitude", f"a cell of {levels}")]
    tokens, flop = _measured(tokenizer.encode, week)
    codec = tokenizer.codec
    boxes.append(_box(run, "tokenizer", _shape(week), _shape(tokens), codec, flop))
    traits = None if model.traits is None else torch.zeros(1, len(run.recipe.traits), dtype=torch.long)
    aside = {}
    if model.traits is not None and traits is not None:
        cond, flop = _measured(model.traits, traits)
        names = ", ".join(run.recipe.traits)
        boxes.append(Box("traits", f"What is known of a person becomes a condition: {names}", _shape(traits), _shape(cond),
                         parameters=_size(model.traits), flop=flop))  # fmt: skip
        aside["traits"] = "inputs"
    x, cond = model.inputs(tokens, traits)
    _, flop = _measured(tokenizer.inputs, tokens)
    read = _size(tokenizer, ("codec", "head"))
    boxes.append(Box("inputs", "What the backbone reads for each token: what is known before its group is decided",
                     _shape(tokens), _shape(x), parameters=read, flop=flop))  # fmt: skip
    boxes += _backbone(run, model.backbone, x, schedule, cond)
    if aside and model.backbone.uses_condition:
        aside["traits"] = boxes[-1].name
    _, flop = _measured(tokenizer.head.loss, model.backbone(x, schedule, cond), x, tokens)
    boxes.append(Box("head", "Each token's distribution, from which it is drawn", _shape(x), f"{_shape(tokens)} tokens",
                     parameters=_size(tokenizer, ("codec",)) - read, flop=flop))  # fmt: skip
    decoded, flop = _measured(tokenizer.decode, tokens)
    boxes.append(Box("decode", "Tokens become cells again", _shape(tokens), _shape(decoded), flop=flop))
    return Dataflow("", "generate", _passes(schedule), boxes, aside)


def _forecaster(run: Run) -> Dataflow:
    model: Forecaster = run.forecaster(weights=False)
    settings = run.recipe.forecast
    n, c = len(run.data["nodes"]), len(run.data["channels"])
    history = torch.zeros(1, settings.history, n, c)
    slots = torch.zeros(1, settings.history + settings.horizon, dtype=torch.long)
    scaled = model.scaler.scale(history, slots[:, : settings.history])
    boxes = [Box("scale", f"Values of each {settings.scale} get mean 0 and deviation 1", _shape(history), _shape(scaled))]
    x, flop = _measured(model.tokenizer, model.scaler.window(scaled)[0])
    boxes.append(_box(run, "tokenizer", _shape(scaled), _shape(x), model.tokenizer, flop))
    schedule = model.tokenizer.schedule
    many = f" (layer 1 of {settings.layers})" if settings.layers > 1 else ""
    mixed, flop = _measured(model.mixers[0], x, model.entity)
    mixer = _box(run, "mixer", _shape(x), _shape(mixed), model.mixers[0], flop)
    mixer.name += many
    b, tokens, nodes, d, q = x.shape
    of_nodes = x.permute(0, 2, 1, 4, 3).reshape(b * nodes, tokens, q * d)
    backbone = _backbone(run, model.backbones[0], of_nodes, schedule, None, entity=model.entity)
    for box in backbone:
        box.name += many
    boxes += [mixer, *backbone]
    whole, flop = _measured(model.scaled, scaled)
    known = sum(box.flop for box in boxes)
    rest = sum(_size(m) for m in (*model.mixers[1:], *model.backbones[1:]))
    if settings.layers > 1:
        others = "layer 2" if settings.layers == 2 else f"layers 2 to {settings.layers}"
        boxes.append(Box(others, "The same again, with weights of their own", _shape(x), _shape(x), parameters=rest,
                         flop=(mixer.flop + sum(box.flop for box in backbone)) * (settings.layers - 1)))  # fmt: skip
        known += boxes[-1].flop
    says = f"All tokens of a node tell its next {settings.horizon} steps at once"
    head = Box("head", says, _shape(x), _shape(whole), parameters=_size(model.head), flop=max(flop - known, 0))
    boxes.append(head)
    boxes.append(Box("unscale", "Back to real units", _shape(whole), _shape(whole)))
    boxes.append(
        Box("nodes", "A learned vector for each node", f"({n},)", _shape(model.entity), parameters=model.entity.numel())
    )
    aside = {"nodes": boxes[2].name}
    return Dataflow("", "forecast", _passes(schedule), boxes, aside)


def _completer(run: Run) -> Dataflow:
    model: Completer = run.completer(weights=False)
    data: Trajectories = run.trajectories()
    some = max((data[int(row)] for row in data.rows("train")[:20]), key=len)[: run.recipe.complete.window]
    mask = registry().find("mask", "mobtk.last").load()(points=max(1, len(some) // 4))
    paths = collate([some], [hide(some, mask, np.random.default_rng(0))], data.info.timezone, multiple=model.tokenizer.patch)
    tokens, flop = _measured(model.tokens, paths, True)
    n = paths.time.shape[1]
    local = f"(1, {n}, 2) metres, (1, {n}) seconds"
    boxes = [
        Box("local", "Degrees become metres from the first point, moments seconds since it", f"({n}, 3) lat, lon, t", local)
    ]
    box = _box(run, "tokenizer", local, _shape(tokens.inputs), None, flop)
    box.parameters = _size(model.tokenizer, ("place_head", "time_head"))
    boxes.append(box)
    schedule = Schedule.autoregressive(tokens.inputs.shape[1])
    rows = {"rows": tokens.rows} if model.backbone.takes_rows else {}
    boxes += _backbone(run, model.backbone, tokens.inputs, schedule, None, **rows)
    hidden = model.tokenizer.apart(tokens.inputs)
    tokenizer = model.tokenizer
    for name, head, gives in (
        ("place head", tokenizer.place_head, (1, n, 2)),
        ("time head", tokenizer.time_head, (1, n, 1)),
    ):
        numbers = torch.zeros(gives)
        _, flop = _measured(head.loss, hidden, hidden, numbers)
        what = "the place" if name == "place head" else "the moment"
        boxes.append(Box(name, f"A distribution of {what} of each point, in units of its trajectory", _shape(hidden),
                         f"{tuple(gives)}", parameters=_size(head), flop=flop))  # fmt: skip
    boxes.append(Box("back", "Numbers times units, added to what was shown last", f"(1, {n}, 3)", f"({n}, 3) lat, lon, t"))
    return Dataflow("", "complete", _passes(schedule) + ", or all hidden points at once", boxes)


def _backbone(run: Run, backbone: nn.Module, x: Tensor, schedule: Schedule, cond: Tensor | None, **more: Any) -> list[Box]:
    """The backbone, or a router and its experts, each a box."""
    routed = isinstance(backbone, MixtureOfExperts)
    known = {} if not routed and "entity" in more else more
    out, flop = _measured(lambda: backbone(x, schedule, cond, **known))
    state: Any = None
    if run.recipe.task != "forecast":  # which asks for all at once
        state = backbone.new_state(1, schedule)  # type: ignore[operator]
        for group in schedule.groups():
            backbone(x[:, group], schedule, cond, state)
    box = _box(run, "backbone", _shape(x), _shape(out), backbone, flop)
    box.state = _bytes(state)
    if not isinstance(backbone, MixtureOfExperts):
        return [box]
    router = _box(run, "router", _shape(x), f"an expert of {len(backbone.experts)}", backbone.router)
    box.parameters -= router.parameters
    box.name = f"backbone x {len(backbone.experts)}" + (" and a shared one" if backbone.shared is not None else "")
    return [router, box]


def _box(run: Run, kind: str, given: str, gives: str, module: nn.Module | None = None, flop: int = 0) -> Box:
    entry = registry().find(kind, getattr(run.recipe, kind).name)
    origin = next(p.origin for p in loaded().plugins if p.name == entry.package and p.problem is None)
    return Box(kind, entry.summary, given, gives, entry.full_name, origin, 0 if module is None else _size(module), flop)


def _measured(call: Callable[..., Any], *given: Any) -> tuple[Any, int]:
    """What a call gives, and the operations of its matrix products, convolutions and selective scans.

    Attention and recurrent layers are taken apart for it: the counter sees no fused kernel.
    """
    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings(), counter, counted() as scans, sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")  # torch's own, of kernels for Intel's GPUs
        with torch.backends.mkldnn.flags(enabled=False):
            result = call(*given)
    return result, counter.get_total_flops() + sum(scans)


def _size(module: nn.Module, but: Collection[str] = ()) -> int:
    """Parameters of a module, but for those that lie in parts of it by these names only; what is shared counts outside."""
    found = {
        id(p): p.numel() for name, p in module.named_parameters(remove_duplicate=False) if name.split(".")[0] not in but
    }
    return sum(found.values())


def _bytes(state: Any) -> int:
    """Of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    inside = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(_bytes(x) for x in inside or getattr(state, "__dict__", {}).values())


def _shape(x: Tensor) -> str:
    return str(tuple(x.shape))


def _passes(schedule: Schedule) -> str:
    if schedule.family == "autoregressive":
        return f"{schedule.n_tokens} tokens, one after the other"
    if schedule.n_groups == 1:
        return f"{schedule.n_tokens} tokens, all known at once"
    return f"{schedule.n_tokens} tokens in {schedule.n_groups} passes: {', '.join(map(str, schedule.lengths))}"


def text(flow: Dataflow) -> str:
    """A dataflow for a terminal."""
    lines = [f"{flow.title}: {flow.task}; {flow.schedule}", ""]
    for box in flow.boxes:
        arrow = f"  -> {flow.aside[box.name]}" if box.name in flow.aside else ""
        lines.append(f"{box.name}{f' {box.part} ({box.plugin})' if box.part else ''}{arrow}")
        lines += [f"    {box.says}", f"    {box.given} -> {box.gives}"]
        if cost := costs(box):
            lines.append(f"    {cost}")
    total = Box("", "", "", "", parameters=sum(b.parameters for b in flow.boxes), flop=sum(b.flop for b in flow.boxes),
                state=sum(b.state for b in flow.boxes))  # fmt: skip
    return "\n".join([*lines, "", f"in all: {costs(total)}"])


def costs(box: Box) -> str:
    """Parameters, operations and state of a box, those that there are."""
    parts = [f"{box.parameters:,} parameters"] if box.parameters else []
    parts += [f"{_short(box.flop)}FLOP a pass"] if box.flop else []
    parts += [f"{_short(box.state)}B of state"] if box.state else []
    return ", ".join(parts)


def _short(number: float) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} P"


def mermaid(flow: Dataflow) -> str:
    """A dataflow as a Mermaid flowchart."""
    names = {box.name: f"b{i}" for i, box in enumerate(flow.boxes)}
    lines = ["flowchart TD"]
    for box in flow.boxes:
        words = [
            f"<b>{box.name}</b>{' ' + box.part if box.part else ''}",
            box.says,
            box.given + " → " + box.gives,
            costs(box),
        ]
        label = "<br>".join(w for w in words if w).replace('"', "'")
        lines.append(f'    {names[box.name]}["{label}"]')
    row = [box for box in flow.boxes if box.name not in flow.aside]
    lines += [f"    {names[a.name]} --> {names[b.name]}" for a, b in pairwise(row)]
    lines += [f"    {names[a]} --> {names[b]}" for a, b in flow.aside.items()]
    return "\n".join(lines) + "\n"


def svg(flow: Dataflow, path: PathLike) -> None:
    """A dataflow as a picture that keeps its text."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    row = [box for box in flow.boxes if box.name not in flow.aside]
    high, gap = 1.0, 0.55
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "mobtk"}):
        wide = 14.0 if flow.aside else 8.6
        figure = Figure(figsize=(wide, 0.95 * (len(row) * (high + gap) + 1)))
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, wide), ylim=(-len(row) * (high + gap), 1), xticks=[], yticks=[])
        ax.axis("off")
        ax.text(0.3, 0.55, f"{flow.title}: {flow.task}; {flow.schedule}", fontsize=12, weight="bold")
        where: dict[str, tuple[float, float]] = {}
        for i, box in enumerate(row):
            where[box.name] = (0.3, -i * (high + gap))
        for name, target in flow.aside.items():
            where[name] = (8.7, where[target][1])
        for box in flow.boxes:
            x, y = where[box.name]
            own = not box.part or box.part.startswith("mobtk.")
            face, edge = ("#eef3fa", "#2b6cb0") if own else ("#fdf1e3", "#b7791f")
            style, width = "round,pad=0.02,rounding_size=0.08", 5 if x > 1 else 8
            ax.add_patch(FancyBboxPatch((x, y - high), width, high, boxstyle=style, facecolor=face, edgecolor=edge))
            ax.text(x + 0.15, y - 0.28, f"{box.name}  {box.part}", fontsize=11, weight="bold")
            ax.text(x + 0.15, y - 0.58, box.says, fontsize=8.5)
            numbers = f"{box.given} → {box.gives}" + (f"    {costs(box)}" if costs(box) else "")
            ax.text(x + 0.15, y - 0.86, numbers, fontsize=8.5, color="#4a5568")
        arrow = {"arrowstyle": "-|>", "color": "#4a5568"}
        for a, b in pairwise(row):
            ax.annotate("", (4.3, where[b.name][1] + 0.03), (4.3, where[a.name][1] - high - 0.03), arrowprops=arrow)
        for target in flow.aside.values():
            y = where[target][1] - high / 2
            ax.annotate("", (8.35, y), (8.65, y), arrowprops=arrow)
        with new_file(path) as draft:
            figure.savefig(draft, format="svg", metadata={"Date": None, "Creator": "mobtk"})
