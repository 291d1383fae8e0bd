"""STM3 (Chen et al. 2025, https://arxiv.org/abs/2508.12247) for mobtk.

The method, in the order of the paper: :mod:`~mobtk_stm3.tokenizer` (a node's past at four scales), :mod:`~mobtk_stm3.mixer`
(a learned graph, and attention from fine scales to coarse), :mod:`~mobtk_stm3.backbone` (one state space for all scales, and
what experts of it ask of each other), :mod:`~mobtk_stm3.recipes` (how they are put together).
"""

from mobtk.plugins import hookimpl
from mobtk.registry import Registry


@hookimpl
def mobtk_register(registry: Registry) -> None:
    """Register the parts and recipes of STM3."""
    registry.tokenizer("multiscale", "mobtk_stm3.tokenizer:Multiscale", "For fields: a token a step, at several scales")
    registry.mixer("adaptive-graph", "mobtk_stm3.mixer:AdaptiveGraph", "For fields: a learned graph; scales fine to coarse")
    registry.backbone("multiscale-mamba", "mobtk_stm3.backbone:MultiscaleMamba", "One Mamba, a step-size bias per scale")
    registry.router("published-gate", "mobtk_stm3.router:PublishedGate", "STM3's router as its code has it: hardly learns")
    registry.recipe("stm3", "mobtk_stm3.recipes:STM3", "STM3 without the faults of its authors' code")
    registry.recipe("stm2", "mobtk_stm3.recipes:STM2", "The same without experts")
    registry.recipe("stm3-published", "mobtk_stm3.recipes:PUBLISHED", "STM3 as its authors' code has it")
    for name, summary in (
        ("causal-mask", "Whether scales that read coarser ones only forecast better than scales that read all"),
        ("routing", "Experts by node against experts by window: who moves, and who is nearer"),
        ("specialisation", "What the contrastive loss does to what experts say: silhouettes and a picture"),
        ("scales", "One to five scales"),
        ("experts", "None to eight experts"),
        ("planted", "Whether routing finds regimes that were planted in a field"),
        ("published-vs-corrected", "STM3 as published, corrected, without experts; other backbones; and baselines"),
    ):
        registry.experiment(name, f"mobtk_stm3.experiments:{name.replace('-', '_').upper()}", summary)
