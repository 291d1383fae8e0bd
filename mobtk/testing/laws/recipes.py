"""Laws of recipes."""

from mobtk.models.assemble import check
from mobtk.recipe import Recipe
from mobtk.testing.laws.common import Law


def recipe_fits(recipe: Recipe) -> None:
    """Its parts are installed and fit each other."""
    check(recipe)


def recipe_is_read_again(recipe: Recipe) -> None:
    """Written as TOML and read again, it is the same."""
    assert Recipe.loads(recipe.dumps()) == recipe, "read again, it is another recipe"


LAWS: tuple[Law, ...] = (
    recipe_fits,
    recipe_is_read_again,
)
