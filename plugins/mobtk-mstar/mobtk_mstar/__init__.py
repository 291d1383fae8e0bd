"""M-STAR (Luo et al. 2025, https://arxiv.org/abs/2512.07314) for mobtk.

The method, in the order of the paper: :mod:`~mobtk_mstar.tokenizer` (a week as codes of eight scales),
:mod:`~mobtk_mstar.star` (the transformer that foretells them scale by scale), :mod:`~mobtk_mstar.head` (how a code is
drawn), :mod:`~mobtk_mstar.recipes` (how they are put together).
"""

from mobtk.plugins import hookimpl
from mobtk.registry import Registry


@hookimpl
def mobtk_register(registry: Registry) -> None:
    """Register the parts and recipes of M-STAR."""
    registry.tokenizer("mst", "mobtk_mstar.tokenizer:MSTTokenizer", "M-STAR's tokenizer, as published or corrected")
    registry.tokenizer("diary", "mobtk_mstar.diary:DiaryTokenizer", "M-STAR's scales over which place; then where it is")
    registry.backbone("star", "mobtk_mstar.star:STAR", "M-STAR's transformer: one adaptive layer norm for all blocks")
    registry.recipe("mstar", "mobtk_mstar.recipes:MSTAR", "M-STAR's sizes with mobtk's parts")
    registry.recipe("mstar-small", "mobtk_mstar.recipes:SMALL", "The same, sized for a CPU")
    registry.recipe("mstar-diary", "mobtk_mstar.recipes:DIARY", "Which place coarse to fine, then where; for a CPU")
    registry.recipe("mstar-diary-large", "mobtk_mstar.recipes:LARGE_DIARY", "The same as wide and deep as the paper's")
    registry.recipe("mstar-published", "mobtk_mstar.recipes:PUBLISHED", "M-STAR as its authors' code has it")
    registry.recipe("mstar-corrected", "mobtk_mstar.recipes:CORRECTED", "M-STAR without the faults of that code")
    for name, summary in (
        ("reconstruction", "The tokenizer alone on people it has not seen: published, each correction, ours"),
        ("codebook", "Use and perplexity of the codes, collapse provoked and repaired"),
        ("scales", "Fidelity and speed with 1 to 12 scales, and hour by hour"),
        ("attributes", "Whether a week matches the profile it was made for"),
        ("irregular", "Whether irregular people come out too regular"),
        ("discontinuity", "Hours that break a stay, and what helps"),
        ("published-vs-corrected", "All scores of the published and the corrected settings, and of our parts"),
        ("swap", "One part replaced at a time: backbones, and hexagons for squares"),
        ("speed", "Weeks a second beside hour by hour and diffusion"),
        ("baselines", "A diary beside a GPT-2, a diffusion, Markov chains, time of day and EPR"),
    ):
        registry.experiment(name, f"mobtk_mstar.experiments:{name.replace('-', '_').upper()}", summary)
