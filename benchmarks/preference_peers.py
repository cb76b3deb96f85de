"""Other packages on the same simulated answers; run by `benchmarks.preference` elsewhere.

questplus is GPL-3 and AEPsych CC-BY-NC: neither is a dependency nor imported by this project. This
file runs as a process of the environment that `benchmarks.preference --peers DIR` makes for each,
reads JSON from stdin and writes JSON to stdout. It imports nothing of ours.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from typing import Any

import numpy as np

_SAMPLES = 200


def questplus(task: dict[str, Any]) -> dict[str, Any]:
    """Return questplus' marginal over the mean after each rater's binary answers.

    Args:
        task: Grids and weights of the model, and per rater strengths and answers, where 1 is "not
            too weak".
    """
    package = importlib.import_module("questplus")
    densities, times = [], []
    lapses = np.asarray(task["lapses"]) / 2
    for shown, answers in zip(task["strengths"], task["answers"], strict=True):
        estimator = package.QuestPlus(
            stim_domain={"intensity": task["rungs"]},
            param_domain={
                "mean": task["grid"],
                "sd": task["noises"],
                "lower_asymptote": lapses.tolist(),
                "lapse_rate": lapses.tolist(),
            },
            outcome_domain={"response": ["Yes", "No"]},
            prior={
                "mean": [1 / len(task["grid"])] * len(task["grid"]),
                "sd": task["noise_weights"],
                "lower_asymptote": [0.5, 0.5],
                "lapse_rate": [0.5, 0.5],
            },
            func="norm_cdf",
            stim_scale="linear",
        )
        # Its prior is a product; ours ties the two asymptotes together: half of one lapse each.
        tied = np.diag(task["lapse_weights"])
        estimator.posterior = estimator.posterior.copy(
            data=np.asarray(task["grid"])[:, None, None, None] * 0
            + np.asarray(task["noise_weights"])[None, :, None, None] * tied
        )
        estimator.posterior /= estimator.posterior.sum()
        for strength, answer in zip(shown, answers, strict=True):
            started = time.perf_counter()
            estimator.update(
                stim={"intensity": strength}, outcome={"response": "Yes" if answer else "No"}
            )
            estimator.next_stim  # noqa: B018
            times.append(1000 * (time.perf_counter() - started))
        densities.append(np.asarray(estimator.marginal_posterior["mean"]).tolist())
    return {"densities": densities, "ms": float(np.median(times))}


def aepsych(task: dict[str, Any]) -> dict[str, Any]:
    """Return where AEPsych's ordinal GP puts each rater's ideal, with a 90 % interval.

    The ideal is where the latent function is halfway between the cut-points around "just right",
    for each of 200 joint draws of the function.
    """
    torch = importlib.import_module("torch")
    models = importlib.import_module("aepsych.models")
    likelihoods = importlib.import_module("aepsych.likelihoods")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    grid = torch.tensor(task["grid"], dtype=torch.float64)[:, None]
    found: dict[str, list[Any]] = {"means": [], "lows": [], "highs": [], "seconds": []}
    for shown, answers in zip(task["strengths"], task["answers"], strict=True):
        started = time.perf_counter()
        model = models.OrdinalGPModel(dim=1, likelihood=likelihoods.OrdinalLikelihood(n_levels=5))
        x = torch.tensor(shown, dtype=torch.float64)[:, None]
        model.fit(x, torch.tensor(answers))
        cuts = model.likelihood.cutpoints.detach()
        draws = model.sample(grid, _SAMPLES).detach()
        nearest = (draws - (cuts[1] + cuts[2]) / 2).abs().argmin(dim=-1)
        ideals = np.asarray(task["grid"])[nearest.numpy()]
        found["seconds"].append(time.perf_counter() - started)
        found["means"].append(float(ideals.mean()))
        low, high = np.quantile(ideals, [0.05, 0.95])
        found["lows"].append(float(low))
        found["highs"].append(float(high))
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    peer = {"questplus": questplus, "aepsych": aepsych}[sys.argv[1]]
    answer = peer(json.load(sys.stdin))
    json.dump(answer, sys.stdout)
