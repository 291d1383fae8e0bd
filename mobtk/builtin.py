"""The built-in parts, registered by the same hook and entry-point group as any plugin's."""

from mobtk.plugins import hookimpl
from mobtk.registry import Registry


@hookimpl
def mobtk_register(registry: Registry) -> None:
    """Register what mobtk ships."""
    registry.mapper("grid", "mobtk.mappers.grid:Grid", "Square cells of any size in metres; levels by doubling")
    registry.mapper("h3", "mobtk.mappers.h3:H3", "Uber's hexagons at any resolution; levels are parents")
    registry.mapper("places", "mobtk.mappers.places:Places", "Named places (shops, stops): the nearest one; no levels")
    registry.mapper(
        "polygons", "mobtk.mappers.polygons:Polygons", "Polygons of your own: districts, zones; levels by column"
    )

    registry.tokenizer("cells", "mobtk.tokenizers.cells:CellTokens", "One token a step: the cell; step by step, or masked")
    registry.tokenizer("rvq", "mobtk.tokenizers.rvq:ResidualVQ", "Multi-scale residual codes, coarse to fine")
    registry.tokenizer("points", "mobtk.tokenizers.points:Points", "For points: steps in units of each trajectory; patches")
    registry.tokenizer("patches", "mobtk.tokenizers.patches:Patches", "For fields: a token for so many steps of a node")

    registry.backbone(
        "transformer", "mobtk.backbones.transformer:Transformer", "Pre-norm, rotary, adaptive layer norm on traits"
    )
    registry.backbone("gpt2", "mobtk.backbones.gpt2:GPT2", "GPT-2 as published: learned positions, pre-norm")
    registry.backbone("mamba", "mobtk.backbones.mamba:Mamba", "Selective state space (Mamba-1), linear in length")

    registry.router("none", "mobtk.routers.none:NoRouter", "One expert serves everything")
    registry.router("input", "mobtk.routers.input:InputRouter", "Top-k experts by the sequence's features, balanced")
    registry.router("entity", "mobtk.routers.entity:EntityRouter", "Top-k experts by a static embedding of the entity")

    registry.mixer("none", "mobtk.mixers.none:NoMixer", "For fields: each node by itself")
    registry.mixer("graph", "mobtk.mixers.graph:GraphMixer", "For fields: diffusion over a given graph")

    registry.mask("random", "mobtk.masks:RandomPoints", "Places of points here and there")
    registry.mask("block", "mobtk.masks:Block", "Places of one stretch of points")
    registry.mask("segments", "mobtk.masks:Segments", "Places of several short stretches")
    registry.mask("key-points", "mobtk.masks:KeyPoints", "Places of the points where a trajectory turns")
    registry.mask("last", "mobtk.masks:Last", "Places of the last points: prediction")
    registry.mask("keep-every", "mobtk.masks:KeepEvery", "Places of all points but every so many: recovery")
    registry.mask("modality", "mobtk.masks:Modality", "All places, or all moments, but the first")
    registry.mask("origin-destination", "mobtk.masks:OriginDestination", "When the end is reached, from both ends alone")
    registry.mask("travel-time", "mobtk.masks:TravelTime", "When the points of a known path are reached")

    registry.recipe("default", "mobtk.recipe:DEFAULT", "Coarse to fine: grid, rvq, transformer")
    registry.recipe("autoregressive", "mobtk.recipe:AUTOREGRESSIVE", "Hour by hour: grid, cells, gpt2")
    registry.recipe(
        "masked", "mobtk.recipe:MASKED", "A few passes, each amid the hours of those before: grid, cells, transformer"
    )
    registry.recipe("forecaster", "mobtk.recipe:FORECASTER", "A field: patches of each node through a transformer")
    registry.recipe("completer", "mobtk.recipe:COMPLETER", "Points: predict, fill gaps, tell travel times")
    registry.recipe("demo", "mobtk.recipe:DEMO", "The default, sized for a few minutes on two cores")
    registry.recipe("tiny", "mobtk.recipe:TINY", "The default, for tests and tries: trains in seconds")
