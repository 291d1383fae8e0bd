"""How STM3 is put together: corrected, without experts, and as published."""

import msgspec

from mobtk.recipe import Forecast, Part, Recipe, Stage, Training

PAPER = "STM3 (Chen et al. 2025, https://arxiv.org/abs/2508.12247)"

STM3 = Recipe(
    task="forecast",
    source=f"{PAPER}, without the faults of the authors' code",
    width=16,
    tokenizer=Part("stm3.multiscale"),
    mixer=Part("stm3.adaptive-graph"),
    backbone=Part("stm3.multiscale-mamba", {"contrast": 0.01}),
    router=Part("mobtk.entity", {"balance": 0.01}),
    experts=4,
    shared=True,
    forecast=Forecast(history=96, horizon=96, layers=2, entity=12, window="mean"),
    training=Training(precision="float32", forecaster=Stage(epochs=20, batch=64, lr=3e-3, weight_decay=0.0, patience=3)),
)
"""At the sizes of the authors' code. Ours besides the parts: a window's mean and deviation are taken out and put back; each
node is scaled by itself; the loss is of scaled values, with .01 of the contrastive loss (theirs: of real values, with .1)
and .01 of a loss that keeps experts in balance (none); 20 epochs with a patience of 3 (100, 15), a norm of the gradient of
at most 1 and a rate that falls by a cosine (halved once, after 25 epochs).
"""

STM2 = msgspec.structs.replace(
    STM3, source=f"{PAPER}, first version: without experts", router=Part("mobtk.none"), experts=1, shared=False
)

PUBLISHED = Recipe(
    task="forecast",
    source=f"{PAPER}, as the authors' code has it",
    width=16,
    tokenizer=Part("stm3.multiscale", {"over": "nodes"}),
    mixer=Part("stm3.adaptive-graph"),
    backbone=Part("stm3.multiscale-mamba", {"published": True, "contrast": 0.1}),
    router=Part("stm3.published-gate"),
    experts=4,
    shared=True,
    forecast=Forecast(history=96, horizon=96, layers=2, entity=12, scale="field", loss="real"),
    training=Training(
        precision="float32",
        forecaster=Stage(epochs=100, batch=64, lr=3e-3, warmup=0.0, weight_decay=0.0, clip=1e6, patience=15),
    ),
)
"""The settings of their PEMS08. What stays ours: windows whose past reaches into the split before, a rate that falls by a
cosine (theirs: halved once, after 25 epochs), betas of .9 and .95, masked values, router noise in training only; and lift,
scales, graph, gates, head and embedding begin as ours do (theirs: every matrix by Xavier's rule, every vector uniform from
0 to 1, as in the multiscale Mamba here). ``mobtk evaluate --published`` computes the errors as their code does.
"""
