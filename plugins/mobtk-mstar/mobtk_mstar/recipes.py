"""How M-STAR is put together: at its own sizes with mobtk's parts, sized for a CPU, and as published or corrected."""

import msgspec

from mobtk.recipe import SPARSE_CODES, Part, Recipe, Sampling, Stage, Training

PAPER = "M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314)"

MSTAR = Recipe(
    source=f"{PAPER}: its sizes, its shape, mobtk's parts",
    width=256,
    tokenizer=Part("mobtk.rvq", {"codes": 4096, "code_width": 256, "depth": 2, "heads": 8, "head": "categorical"}),
    backbone=Part("mobtk.transformer", {"depth": 4, "heads": 8}),
    training=Training(
        tokenizer=Stage(epochs=10, batch=128, lr=1e-4, patience=5),
        generator=Stage(epochs=30, batch=128, lr=1e-3, patience=5),
    ),
)
"""470 tokens a week in 8 passes, 4,096 codes of 256 numbers, four blocks of width 256. For a GPU."""

SMALL = Recipe(
    source=f"{PAPER}: its shape with small codes, sized for a CPU",
    width=128,
    tokenizer=Part("mobtk.rvq", {"codes": 512, "code_width": 2, "depth": 0, **SPARSE_CODES}),
    backbone=Part("mobtk.transformer", {"depth": 3, "heads": 4}),
    training=Training(
        tokenizer=Stage(epochs=1, batch=32, lr=1e-3),
        generator=Stage(epochs=4, batch=32, lr=2e-3),
    ),
    sampling=Sampling(top_p=0.99),
)
"""The same 8 scales; codes of two numbers, which are displacements on the map and need no encoder."""

PUBLISHED = Recipe(
    source=f"{PAPER}, as the authors' code has it",
    width=256,
    tokenizer=Part(
        "mstar.mst", {"pairing": "published", "feedback": False, "codebook": "gradient", "smooth": True, "codes": 4096}
    ),
    backbone=Part("mstar.star", {"depth": 4, "heads": 8}),
    trait_cells="table",
    training=Training(
        tokenizer=Stage(epochs=100, batch=128, lr=1e-4, warmup=0.0, weight_decay=1e-5, patience=5),
        generator=Stage(epochs=100, batch=128, lr=1e-3, warmup=0.0, weight_decay=0.01, patience=20),
    ),
    sampling=Sampling(top_k=10, coupling=0),
)
"""Settings of the authors' code: rows 0, 7, 6, 5, 4, 3, 2, 0, no feedback, smoothing in generation only, top-k of 10.

What stays ours: AdamW with betas of .9 and .95 and no decay of vectors (theirs: Adam with L2 for the tokenizer,
betas of .9 and .999), learning rates that fall to a tenth (theirs: to a hundredth for the tokenizer), the best weights by
validation loss or accuracy (theirs: by two divergences of generated weeks), patience in epochs, codes made once and without
dropout, the vector that stands before the first token in generation, too (theirs leaves it out there), tables of home and
cluster that begin alike, and bfloat16 where the processor multiplies it natively.
"""

CORRECTED = msgspec.structs.replace(
    PUBLISHED,
    source=f"{PAPER}, without the faults of the authors' code",
    tokenizer=Part("mstar.mst", {"codes": 4096}),
)
"""The same parts with rows in the intended order, feedback of what codes get wrong, living codes, and no smoothing."""

DIARY = Recipe(
    source=f"{PAPER}: scales over which place, then where it is; sized for a CPU",
    width=128,
    tokenizer=Part("mstar.diary", {"codes": 2048}),
    backbone=Part("mobtk.transformer", {"depth": 3, "heads": 4}),
    training=Training(
        tokenizer=Stage(epochs=1, batch=64),
        generator=Stage(epochs=6, batch=32, lr=2e-3),
    ),
    sampling=Sampling(coupling=0),
)
"""216 tokens a week in 16 passes: four scales of a diary, and twelve places."""

LARGE_DIARY = msgspec.structs.replace(
    DIARY,
    width=256,
    backbone=MSTAR.backbone,
    training=Training(tokenizer=Stage(epochs=1, batch=64), generator=Stage(epochs=20, batch=128, lr=1e-3)),
)
"""The same as wide and deep as the paper's model. For a GPU."""
