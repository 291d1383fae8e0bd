"""Building a Foundation Model for Trajectory from Scratch (Merten, Sakr and Dejaegere 2025,
https://arxiv.org/abs/2511.20610) for mobtk.

Its parts are of use to others and so are core's: the tokenizer :mod:`mobtk.tokenizers.points`, positions of the backbones,
:mod:`mobtk.masks`, :mod:`mobtk.models.completer`. Here is how they are put together (:mod:`~mobtk_trajfm.recipes`) and what
the tutorial asks (:mod:`~mobtk_trajfm.experiments`).
"""

from mobtk.plugins import hookimpl
from mobtk.registry import Registry


@hookimpl
def mobtk_register(registry: Registry) -> None:
    """Register the recipes and experiments of the tutorial."""
    registry.recipe("trajfm", "mobtk_trajfm.recipes:TRAJFM", "GPT-2 over steps of continuous points")
    registry.recipe("trajfm-masked", "mobtk_trajfm.recipes:MASKED", "With masks, too: predicts, completes, travel times")
    registry.recipe("trajgpt", "mobtk_trajfm.recipes:TRAJGPT", "Visits: region, then travel time, then duration")
    registry.tokenizer("visits", "mobtk_trajfm.visits:Visits", "For points that are visits: region, travel time, duration")
    for name, summary in (
        ("leak", "Whether durations that cannot be foretold are foretold: TrajGPT and its published leak"),
        ("codec", "Whether points survive being made numbers"),
        ("deltas", "How large steps are"),
        ("loader", "Whether each trajectory comes once in a pass, for any number of workers"),
        ("overfit-one", "Whether one trajectory can be learned by heart"),
        ("autoencoder", "Whether a linear map gives steps back"),
        ("delta-vs-absolute", "Steps, velocities and places as targets"),
        ("masks", "Which mask teaches what: a matrix of masks and tasks"),
        ("positions", "Six kinds of positions, and twice the length"),
        ("patches", "One to eight points a token: errors and speed"),
        ("continuous-vs-discrete", "A number, a mixture of Gaussians, or a cell"),
        ("transfer", "Learned here, tested elsewhere; and moved by 58 km"),
        ("pretraining", "Begun with another model, or from nothing, on 1, 10 and 100 % of the data"),
        ("objective", "Next steps against segments, asked for a hidden block"),
        ("collapse", "Length of steps that are told over that of true ones"),
    ):
        registry.experiment(name, f"mobtk_trajfm.experiments:{name.replace('-', '_').upper()}", summary)
