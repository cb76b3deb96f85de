"""Write the README's table of anonymization from `docs/results/anonymization.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from privacy_core.audit.anonymization.settings import EMBEDDED
from privacy_core.schema import DEFAULT_STRENGTH

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "docs" / "results" / "anonymization.json"
DRAWS = RESULT.with_name("self_reidentification.json")
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
Json = dict[str, Any]
Cell = Callable[[Json], str]


def share(value: Json | None, *, interval: bool = True) -> str:
    """Return an estimate in per cent with its interval, or a dash."""
    if value is None or "value" not in value:
        return "–"
    text = f"{100 * value['value']:.1f} %"
    return f"{text} ({100 * value['low']:.1f}–{100 * value['high']:.1f})" if interval else text


def number(value: Any, pattern: str) -> str:
    """Return a number or an estimate's value, or a dash."""
    if isinstance(value, dict):
        value = value.get("value")
    return "–" if value is None else format(value, pattern)


def at(one: Json, *path: str) -> Any:
    """Return what lies at a path, None where it ends early."""
    value: Any = one
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def errors(one: Json) -> str:
    """Return the landmark errors of eyes, nose and mouth."""
    parts = [at(one, "fidelity", f"landmark_error_{part}") for part in ("eyes", "nose", "mouth")]
    return " / ".join(number({"value": 100 * part["value"]}, ".1f") for part in parts) + " %"


def rows_of(result: Json) -> list[tuple[str, Cell]]:
    """Return the table's rows, a label and a cell's text."""
    first, *others = result["recognisers"]

    def identity(name: str, recogniser: str = first) -> Cell:
        return lambda one: share(at(one, "identity", recogniser, name))

    def inside(name: str) -> Cell:
        return lambda one: share(at(one, "adversary", name, "rank_1"))

    return [
        ("still verified as its original", identity("self_reidentified")),
        *((f"verified as it by {name}, M's opaque part only", identity("self_reidentified", name))
          for name in others),
        ("verified across two photos of a person", identity("cross_tar")),
        (f"found first among {result['gallery']}, by another photo", identity("cross_rank_1")),
        ("linkability of two variants (AUC)",
         lambda one: number(at(one, "identity", first, "linkability_auc"), ".3f")),
        ("trained adversary, sees M only: found first", inside("inside")),
        ("trained adversary, sees the whole crop", inside("whole_crop")),
        ("found first after a network painted the original back",
         lambda one: share(at(one, "reversal", "repainted_rank_1"))),
        ("gender read by a retrained classifier where M is opaque",
         lambda one: share(at(one, "inference", "opaque", "gender"))),
        ("gender read by it in all of M, its rim included",
         lambda one: share(at(one, "inference", "inside", "gender"))),
        ("still detected as a face", lambda one: share(at(one, "fidelity", "detected"))),
        ("eyes / nose / mouth off by (eye distances)", errors),
        ("Fréchet distance of descriptors",
         lambda one: number(at(one, "identity", first, "frechet"), ".3f")),
        ("μ of Gaussian DP", lambda one: number(one.get("mu"), ".1f")),
        ("ε at δ = 1e-5", lambda one: number(one.get("epsilon"), ",.0f")),
        ("found among all by who holds the exact original and the noised numbers",
         lambda one: share(at(one, "matched_filter", "rank_1"), interval=False)),
        ("… and the published picture, by the code of its M, rim included",
         lambda one: share(at(one, "matched_filter", "rank_1_from_picture"), interval=False)),
    ]  # fmt: skip


def table(columns: Sequence[Json], rows: Sequence[tuple[str, Cell]]) -> str:
    """Return a Markdown table, a column per setting."""
    names = [one["name"].removeprefix(f"{EMBEDDED} ") for one in columns]
    lines = ["| strength | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {label} | " + " | ".join(cell(one) for one in columns) + " |"
              for label, cell in rows]  # fmt: skip
    return "\n".join(lines)


def others(result: Json) -> str:
    """Return the other methods beside the embedded setting that identifies as little."""
    lines = ["| method | verified | detected | kept attributes | Fréchet | the model at | detected "
             "| kept | Fréchet | keeping all five at | detected | kept | Fréchet |",
             "|---" * 13 + "|"]  # fmt: skip

    def use(one: Json) -> list[str]:
        values = (("detected", 100, ".0f"), ("kept_mean", 100, ".0f"), ("frechet", 1, ".3f"))
        return [number(None if one.get(n) is None else times * one[n], p) for n, times, p in values]

    for row in result["summary"]["at_equal_reidentification"]:
        own: list[str] = []
        for match in (row["embedded"], row["keeping"]):
            none = "absent" in match
            own += ["–"] * 4 if none else [match["setting"].split()[-1], *use(match)]
        cells = [row["setting"], f"{100 * row['self_reidentified']:.1f} %", *use(row), *own]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def drawn_again(result: Json) -> str:
    """Return what several draws of the noise found, as `benchmarks.self_reidentification` wrote it.

    Raises:
        SystemExit: It was measured with other weights.
    """
    drawn = json.loads(DRAWS.read_text(encoding="utf-8"))
    if drawn["revision"] != result["revision"]:
        raise SystemExit("Run `python -m benchmarks.self_reidentification` for these weights.")
    found = []
    for strength, row in drawn["strengths"].items():
        # As if draws for one face were independent: a little narrow.
        around = binomtest(row["verified"], row["of"]).proportion_ci()
        between = f"{100 * around.low:.2f}–{100 * around.high:.2f}"
        found.append(f"{100 * row['share']:.2f} % ({between}) of {row['of']} at {strength}")
    return ", ".join(found)


def block(result: Json) -> str:
    """Return everything between the README's two marks."""
    settings = [one for one in result["settings"] if one["method"] == EMBEDDED]
    plain = [one for one in settings if not one["policy"]]
    shown = [one for one in plain if one["strength"] in {0.0, 0.6, 0.8, 0.9, 0.95, 1.0}]
    policies = [one for one in settings if one["policy"]]
    kept = at(result, "summary", "kept_over_reconstruction") or {}
    order = result["summary"]["order"][result["recognisers"][0]]
    trained = result["order"]["inside"]
    chosen = result["summary"]["default_strength"]
    chosen = chosen["absent"] if isinstance(chosen, dict) else f"{chosen:g}"
    around = at(result, "context_alone", "rank_1")
    lines = [
        f"{result['n_faces']} photos of {result['n_people']} people the model was not fitted to "
        f"(model `{result['revision']}`; "
        f"\"verified\" by {result['recognisers'][0]} at one false match in 1 000 pairs of "
        "different people's originals; everything, with groups and reasons, in "
        "[`docs/results/anonymization.md`](docs/results/anonymization.md)):",
        table(shown, rows_of(result)),
        "In brackets: 95 % intervals over people. Strength 0 is the code's own reconstruction. "
        f"Smallest strength from which on at most 0.5 % are verified: **{chosen}** in this run, "
        f"where one face is 0.1 %. With further draws of the noise added {drawn_again(result)} are "
        f"verified; the app and the commands start at {DEFAULT_STRENGTH:g}, the first whose "
        "interval, which takes draws for one face as independent and is a little narrow, lies "
        "below 0.5 %. "
        f"The surroundings alone let a trained adversary find {share(around)} of people first. "
        "Spearman correlation of strength and distance over the measured strengths, most of them "
        f"above 0.6: {order['spearman_median']:.2f} in the median, "
        f"{order['spearman_median_below_0.7']:.2f} over those up to 0.7; for an adversary trained "
        f"on {len(trained['strengths'])} of them that sees M only "
        f"{trained['spearman_median']:.2f}, with "
        f"{100 * trained['adjacent_violations_below_0.7']:.1f} % of adjacent ones below 0.7 "
        "the wrong way round. What is left at strength 1 can only come from hair, clothes, "
        "background and pose: no pixel of the face has a part in it. **Hair, clothes and "
        "background are not protected.**",
        "With an attribute policy:",
        table(policies, rows_of(result)),
        *(f"Kept attributes at {name.split()[-1]}, agreement of a second predictor over that on "
          "the code's own reconstruction: "
          + ", ".join(f"{attribute} {100 * value:.0f} %" for attribute, value in values.items()
                      if not isinstance(value, dict)) + "."
          for name, values in kept.items() if isinstance(values, dict)),
        "What that predictor says of the originals themselves is right, by their labels, in "
        + ", ".join(f"{attribute} {100 * found['value']:.0f} %"
                    for attribute, found in result["originals"]["predictors"]["judged"].items()
                    if "value" in found)
        + ": where it errs on a face, a face that keeps the label does not agree with it either.",
        "Other methods, each beside the weakest measured strengths of the model that identify no "
        "more, without a policy and keeping all five attributes (%; kept attributes: mean "
        "agreement of a second predictor; – where none identifies as little):",
        others(result),
    ]  # fmt: skip
    return "\n\n".join(lines)


def write(readme: Path, result: Json) -> None:
    """Replace the table in a README.

    Raises:
        ValueError: The marks are missing.
    """
    text = readme.read_text(encoding="utf-8")
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    readme.write_text(f"{text[:before]}\n{block(result)}\n{text[after:]}", encoding="utf-8")


if __name__ == "__main__":
    write(ROOT / "README.md", json.loads(RESULT.read_text(encoding="utf-8")))
