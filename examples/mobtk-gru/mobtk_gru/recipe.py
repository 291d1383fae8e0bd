"""Hour by hour, through gated recurrent units."""

from mobtk.recipe import Part, Recipe, Stage, Training

HOURLY = Recipe(
    source="Cho et al. 2014, https://arxiv.org/abs/1406.1078",
    width=64,
    tokenizer=Part("mobtk.cells"),
    backbone=Part("gru.gru"),
    training=Training(generator=Stage(epochs=20, batch=32, lr=2e-3)),
)
