"""Cells that are small where people are, for mobtk."""

import mobtk

MOBTK_API_VERSION = 1


@mobtk.hookimpl
def mobtk_register(registry):
    """Register the mapper."""
    registry.mapper("voronoi", "mobtk_voronoi.mapper:Voronoi", "Cells around the centres of clusters of points; levels")
