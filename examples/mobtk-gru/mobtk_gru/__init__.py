"""Gated recurrent units for mobtk."""

import mobtk

MOBTK_API_VERSION = 1


@mobtk.hookimpl
def mobtk_register(registry):
    """Register the backbone, and how one would use it."""
    registry.backbone("gru", "mobtk_gru.backbone:GRU", "Gated recurrent units, linear in length; small state")
    registry.recipe("hourly", "mobtk_gru.recipe:HOURLY", "Hour by hour through gated recurrent units")
