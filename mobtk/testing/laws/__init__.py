"""The laws: plain functions, a sentence each, that hold a part to its contract and to what it declares.

A law takes the class of a part (or a recipe), builds it with its default options on small inputs, and fails by an
``AssertionError`` whose message names the fault.
"""

from mobtk.contracts import FieldTokenizer, PointTokenizer
from mobtk.models.assemble import load_part
from mobtk.registry import Entry
from mobtk.testing.laws import backbones, fields, mappers, masks, points, recipes, routers, tokenizers
from mobtk.testing.laws.common import Law

LAWS: dict[str, tuple[Law, ...]] = {
    "mapper": mappers.LAWS,
    "tokenizer": tokenizers.LAWS,
    "field tokenizer": fields.FIELD_TOKENIZER_LAWS,
    "point tokenizer": points.LAWS,
    "backbone": backbones.LAWS,
    "router": routers.LAWS,
    "mixer": fields.MIXER_LAWS,
    "mask": masks.LAWS,
    "recipe": recipes.LAWS,
}
"""The laws of each kind of part; tokenizers of fields and of points have their own."""


def laws_of(entry: Entry) -> tuple[Law, ...]:
    """The laws that a registered part is held to.

    Raises:
        MobtkError: the part does not load.
    """
    if entry.kind == "tokenizer":
        for contract, name in ((FieldTokenizer, "field tokenizer"), (PointTokenizer, "point tokenizer")):
            if issubclass(load_part("tokenizer", entry.full_name), contract):
                return LAWS[name]
    return LAWS.get(entry.kind, ())
