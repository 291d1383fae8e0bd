import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobtk.errors import BadInput
from mobtk.plugins import registry
from mobtk.recipe import Part, Recipe


@pytest.mark.parametrize("name", [e.name for e in registry().entries("recipe")])
def test_registered_recipes_survive_toml(name):
    recipe = registry().find("recipe", name).load()
    assert isinstance(recipe, Recipe)
    assert recipe.source
    assert Recipe.loads(recipe.dumps()) == recipe


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(-9, 9) | st.text("ab\"\\'\n", max_size=5)),
    st.integers(1, 500),
)
def test_any_options_survive_toml(options, width):
    recipe = Recipe(width=width, tokenizer=Part("rvq", options))
    assert Recipe.loads(recipe.dumps()) == recipe


def test_change_sets_options_parts_and_training():
    recipe = Recipe().change("tokenizer.codes", 512).change("training.generator.epochs", 3)
    assert recipe.tokenizer == Part("rvq", {"codes": 512})
    assert recipe.training.generator.epochs == 3
    replaced = recipe.change("tokenizer", "cells")
    assert replaced.tokenizer == Part("cells")
    assert recipe.tokenizer.name == "rvq", "the original is left as it was"


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("widht", 3, "widht"),
        ("width", -1, ">= 1|> 0"),
        ("width", "wide", "int"),
        ("training.generator.batch", 0, "1|> 0"),
        ("training.precision", "float8", "matching regex"),
        ("task", "dance", "matching regex"),
    ],
)
def test_bad_settings_are_refused(key, value, complaint):
    with pytest.raises(BadInput, match=complaint):
        Recipe().change(key, value)


def test_broken_toml_is_one_sentence():
    with pytest.raises(BadInput, match="my.toml is not valid TOML"):
        Recipe.loads("width = = 3", "my.toml")
