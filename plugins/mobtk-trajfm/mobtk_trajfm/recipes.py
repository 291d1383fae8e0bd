"""How the models of continuous points are put together."""

from mobtk.recipe import Complete, Part, Recipe, Stage, Training, WeightedMask

PAPER = "Building a Foundation Model for Trajectory from Scratch (Merten et al. 2025, https://arxiv.org/abs/2511.20610)"

TRAJFM = Recipe(
    task="complete",
    source=f"{PAPER}, without the faults of its code",
    width=96,
    tokenizer=Part("mobtk.points"),
    backbone=Part("mobtk.gpt2", {"depth": 2, "heads": 4, "longest": 128}),
    complete=Complete(window=128, onward=1.0, untimed=0.25),
    training=Training(precision="float32", completer=Stage(epochs=100, batch=64, lr=2e-3, weight_decay=0.0, patience=20)),
)
"""At the tutorial's sizes: two blocks of width 96 with four heads, learned positions, changes as targets, next steps.

Ours: GPT-2's blocks, which normalise first (theirs: last, and none at the end); the inputs and units of
:class:`mobtk.tokenizers.points.Points`; the absolute error with a learned width (the squared one); moments are mostly known
and told otherwise (always told); padding counts nowhere; walks are turned; a rate that falls (1e-4 throughout).
"""

MASKED = Recipe(
    task="complete",
    source=f"{PAPER}: what it promises of masks, rotary positions and many tasks",
    width=96,
    tokenizer=Part("mobtk.points"),
    backbone=Part("mobtk.gpt2", {"depth": 2, "heads": 4, "positions": "rotary"}),
    complete=Complete(
        window=128,
        onward=0.5,
        masks=tuple(
            WeightedMask(f"mobtk.{name}")
            for name in ("random", "block", "segments", "last", "keep-every", "travel-time", "origin-destination")
        ),
    ),
    training=Training(precision="float32", completer=Stage(epochs=150, batch=64, lr=2e-3, weight_decay=0.0, patience=30)),
)
"""Half of the batches step by step, half at once with what masks hide: one set of weights predicts, completes, and tells
travel times, after TrajFM (Lin et al. 2024, https://arxiv.org/abs/2408.15251) and UniTraj (Zhu et al. 2025,
https://arxiv.org/abs/2411.03859).
"""

TRAJGPT = Recipe(
    task="complete",
    source="TrajGPT (Hsu et al. 2024, https://arxiv.org/abs/2411.04381), without its leak",
    width=128,
    tokenizer=Part("trajfm.visits"),
    backbone=Part("mobtk.gpt2", {"depth": 4, "heads": 2, "positions": "sinusoidal", "dropout": 0.1}),
    complete=Complete(window=128, onward=1.0, untimed=1.0, turned=False, origin="centre"),
    training=Training(precision="float32", completer=Stage(epochs=50, batch=64, lr=1e-3, patience=10)),
)
"""Width, depth and heads of the authors' encoder, sinusoidal positions; regions, mixtures of three Gaussians. Its window is
64 visits (theirs: 128).
"""
