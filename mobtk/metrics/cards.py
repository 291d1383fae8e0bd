"""Metric cards: what each number means, so that nobody has to guess how it was computed."""

from msgspec import Struct


class Card(Struct, frozen=True):
    """What one metric is.

    Args:
        key: its name in result files.
        title: its name in tables.
        formula: how it is computed, in words and symbols.
        unit: of the value.
        range: the values it can take.
        better: ``lower`` or ``higher``.
        masking: which entries are left out.
        aggregation: over what the value is taken.
        bins: how a distribution was cut, where one was.
        source: who defined it.
        published: what the authors' code of M-STAR computes under this name, where that is something else.
    """

    key: str
    title: str
    formula: str
    unit: str
    range: str
    better: str
    masking: str = "nothing is left out"
    aggregation: str = ""
    bins: str = ""
    source: str = ""
    published: str = ""


_JSD = "Jensen-Shannon divergence of the histograms of generated and real values"
_MSTAR = "Luo et al. 2025, https://arxiv.org/abs/2512.07314"
_SMALL_BINS = "; values above the largest real one are counted in a bin of their own"

CARDS: dict[str, Card] = {
    c.key: c
    for c in (
        Card(
            "distance",
            "Distance",
            f"{_JSD}: great-circle distance between the centres of the cells of consecutive steps, 0 where nobody moved",
            "nats",
            "0 to ln 2 = 0.693",
            "lower",
            aggregation="all pairs of consecutive steps of all sequences, pooled",
            bins="200 equal bins from 0 to the largest real distance" + _SMALL_BINS,
            source=_MSTAR,
            published="10,000 edges, hence 9,999 bins; distances rounded to metres; values beyond the last edge dropped",
        ),
        Card(
            "radius",
            "Radius",
            f"{_JSD}: radius of gyration of a sequence, the root mean square distance of its steps to their centre of mass",
            "nats",
            "0 to ln 2 = 0.693",
            "lower",
            aggregation="one value a sequence",
            bins="100 equal bins from 0 to the largest real radius" + _SMALL_BINS,
            source="Gonzalez et al. 2008, https://doi.org/10.1038/nature06958; " + _MSTAR,
            published="mean instead of root mean square distance, to the mean of latitudes and longitudes; bins run to "
            "the square of the largest radius, so that most are empty",
        ),
        Card(
            "duration",
            "Duration",
            f"{_JSD}: length of a stay, the number of consecutive steps in one cell",
            "nats",
            "0 to ln 2 = 0.693",
            "lower",
            aggregation="all stays of all sequences, pooled; the first and the last of a sequence are counted as cut off",
            bins="one a step, up to the length of the sequence",
            source=_MSTAR,
            published="the last stay of each sequence is never counted; the top bin is lost",
        ),
        Card(
            "dailyloc",
            "DailyLoc",
            f"{_JSD}: number of different cells in a day",
            "nats",
            "0 to ln 2 = 0.693",
            "lower",
            aggregation="one value a day of each sequence",
            bins="one a number of cells",
            source=_MSTAR,
            published="different cells in the whole sequence, over its length; the top bin is lost",
        ),
        Card(
            "rank",
            "Rank-frequency",
            "Jensen-Shannon divergence of the shares of visits (stays) of the 100 most visited cells, each side in "
            "descending order of its own",
            "nats",
            "0 to ln 2 = 0.693",
            "lower",
            aggregation="all stays of all sequences",
            bins="one a rank",
            source="Ouyang et al. 2018 and Feng et al. 2020 (MoveSim), as G-rank",
        ),
        Card(
            "cpc",
            "CPC",
            "common part of commuters: 2 sum min(a, b) / (sum a + sum b) over pairs of cells, a and b the moves",
            "share",
            "0 to 1",
            "higher",
            masking="steps without a move",
            aggregation="all moves of all sequences",
            source="Lenormand et al. 2012, https://doi.org/10.1371/journal.pone.0045985",
        ),
        Card(
            "density",
            "Density MAPE",
            "mean over steps of the mean over cells of |generated - real| / real, people in a cell at a step",
            "share",
            "0 and up",
            "lower",
            masking="cells with nobody real at that step",
            aggregation="mean over cells, then over steps; the two sides have equally many sequences",
            source=_MSTAR,
        ),
        Card(
            "flow",
            "Flow MAPE",
            "the same for the people who move from one cell to another between two steps",
            "share",
            "0 and up",
            "lower",
            masking="pairs of cells without a real move at that step, and staying",
            aggregation="mean over pairs, then over steps; the two sides have equally many sequences",
            source=_MSTAR,
            published="staying in a cell is counted as a flow",
        ),
        Card(
            "active",
            "Active MAPE",
            "mean over days of |generated - real| / real, share of people latent or infectious in a simulated epidemic",
            "share",
            "0 and up",
            "lower",
            masking="days on which at most 0.1 % of real people are infected",
            aggregation="120 days, mean of 20 simulations of each population",
            source=_MSTAR + ", E Active; the model of the disease is ours: see mobtk.metrics.epidemic.seir",
        ),
        Card(
            "peak_day",
            "Peak day error",
            "days between the days on which most people are infected",
            "days",
            "0 to 119",
            "lower",
            aggregation="as above",
            source=_MSTAR + "; as above",
        ),
        Card(
            "peak_height",
            "Peak height error",
            "|generated - real| / real of the largest share of people infected on a day",
            "share",
            "0 and up",
            "lower",
            aggregation="as above",
            source=_MSTAR + "; as above",
        ),
        Card(
            "acc@k",
            "Acc@k",
            "share of visits whose true place is among the k places thought most likely; places tied with it count "
            "as expected under a random order",
            "share",
            "0 to 1",
            "higher",
            masking="first visits of people of whom nothing came before",
            aggregation="mean over visits",
            source="next-place prediction, for instance Luca et al. 2021, https://arxiv.org/abs/2012.02825",
        ),
        Card(
            "mrr",
            "MRR",
            "mean of 1 / rank of the true place; ties as above take their mean rank",
            "share",
            "0 to 1",
            "higher",
            masking="as Acc@k",
            aggregation="mean over visits",
            source="next-place prediction, for instance Luca et al. 2021, https://arxiv.org/abs/2012.02825",
        ),
        Card(
            "mae",
            "MAE",
            "mean of |forecast - truth|",
            "as the values",
            "0 and up",
            "lower",
            masking="values that were not measured; zeros count",
            aggregation="all windows of the split (stride 1, none dropped), nodes, channels, steps ahead; each value once",
            source="common; masking as DCRNN (Li et al. 2018), but for zeros, which they take for missing",
        ),
        Card(
            "rmse",
            "RMSE",
            "square root of the mean of (forecast - truth)^2",
            "as the values",
            "0 and up",
            "lower",
            masking="as MAE",
            aggregation="one root over all values at once; a mean of roots of batches is lower",
            source="common",
        ),
        Card(
            "mape",
            "MAPE",
            "mean of |forecast - truth| / |truth|",
            "share",
            "0 and up",
            "lower",
            masking="as MAE, and true values within 1e-6 of 0; small ones weigh much: see WMAPE",
            aggregation="as MAE",
            source="common",
        ),
        Card(
            "wmape",
            "WMAPE",
            "sum of |forecast - truth| / sum of |truth|",
            "share",
            "0 and up",
            "lower",
            masking="as MAE",
            aggregation="sums over all values at once",
            source="common",
        ),
        Card(
            "scaled_mae",
            "scaled MAE",
            "MAE of values divided by the standard deviation of their node over the training split",
            "standard deviations",
            "0 and up",
            "lower",
            masking="as MAE",
            aggregation="as MAE",
            source="long-term forecasting: Zhou et al. 2021, https://arxiv.org/abs/2012.07436",
        ),
        Card(
            "scaled_mse",
            "scaled MSE",
            "mean of squared errors of values scaled so",
            "squared standard deviations",
            "0 and up",
            "lower",
            masking="as MAE",
            aggregation="as MAE",
            source="as scaled MAE",
        ),
        Card(
            "ade",
            "ADE",
            "great-circle distance from each hidden place to what was told of it: their mean over a trajectory",
            "metres",
            "0 and up",
            "lower",
            masking="places that were shown",
            aggregation="the mean over trajectories, each weighing the same however many of its places were hidden",
            source="average displacement error: Pellegrini et al. 2009, https://doi.org/10.1109/ICCV.2009.5459260",
        ),
        Card(
            "fde",
            "FDE",
            "great-circle distance from the last hidden place of a trajectory to what was told of it",
            "metres",
            "0 and up",
            "lower",
            masking="as ADE",
            aggregation="the mean over trajectories",
            source="final displacement error: Alahi et al. 2016, https://doi.org/10.1109/CVPR.2016.110",
        ),
        Card(
            "place_rmse",
            "place RMSE",
            "square root of the mean squared great-circle distance of hidden places",
            "metres",
            "0 and up",
            "lower",
            masking="as ADE",
            aggregation="all hidden places of all trajectories, pooled",
            source="common in trajectory recovery",
        ),
        Card(
            "time_mae",
            "time MAE",
            "mean of |told - true moment|",
            "seconds",
            "0 and up",
            "lower",
            masking="moments that were shown",
            aggregation="all hidden moments of all trajectories, pooled",
            source="travel time estimation, for instance Yuan et al. 2020, https://doi.org/10.1145/3318464.3389771",
        ),
        Card(
            "time_rmse",
            "time RMSE",
            "square root of the mean of (told - true moment)^2",
            "seconds",
            "0 and up",
            "lower",
            masking="as time MAE",
            aggregation="as time MAE",
            source="as time MAE",
        ),
        Card(
            "time_mape",
            "time MAPE",
            "mean of |told - true moment| / time since the first point",
            "share",
            "0 and up",
            "lower",
            masking="as time MAE, and moments that are the first one's",
            aggregation="as time MAE",
            source="as time MAE",
        ),
    )
}
