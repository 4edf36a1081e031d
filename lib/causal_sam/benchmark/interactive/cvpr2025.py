"""Scores of the CVPR 2025 challenge "Foundation Models for Interactive 3D Biomedical Image Segmentation".

The rules are those of `CVPR25_iter_eval.py` in github.com/JunMa11/CVPR-MedSegFMCompetition: a box on the middle slice,
or none; five clicks, each in the middle of the largest error (`challenge_click`); Dice (DSC) and normalised surface
Dice (NSD) at 2 mm after each; the area under their curves over the five clicks by the trapezoidal rule, so at most 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.integrate import trapezoid

from causal_sam.benchmark.interactive.trials import Trial

CLICKS = 5
TOLERANCE_MM = 2.0
TIME_LIMIT = 90.0  # seconds for a structure, over all prompts
# Where the mean Dice of a case is not above this, its surface Dice counts as 0.
MIN_DICE_FOR_NSD = 0.2
SCORES = ("DSC_AUC", "NSD_AUC", "DSC_final", "NSD_final")
RULES = (
    f"As in the challenge, {CLICKS} clicks are placed in the middle of the largest error. The area under the curve "
    f"(AUC) is over these {CLICKS} clicks, so that 4 is the best. NSD has a tolerance of {TOLERANCE_MM:g} mm, and is 0 "
    f"where Dice is not above {MIN_DICE_FOR_NSD:g}. Over time: share of structures that took longer than "
    f"{TIME_LIMIT:g} s over all prompts. What differs from the challenge: each structure is segmented by itself, the "
    "images are not its images, and the box is exact and comes without the range of slices."
)
PUBLISHED = pd.DataFrame(
    [
        ("GS_MedSegFM (from VISTA3D), CT", 2.9638, 3.0037, 0.7562, 0.7739, "github.com/M4cheal/GS_MedSegFM"),
        ("GS_MedSegFM (from VISTA3D), MR", 2.3980, 2.7477, 0.6046, 0.6944, "github.com/M4cheal/GS_MedSegFM"),
        ("SegFM3D Nora (from nnInteractive), all modalities", 2.4799, 2.5671, 0.6385, 0.6614, "arXiv 2510.03189"),
        ("DualClickMed, CT", None, None, 0.8533, None, "openreview.net, jospESnUL9"),
        ("DualClickMed, MR", None, None, 0.6880, None, "openreview.net, jospESnUL9"),
    ],
    columns=["method", *SCORES, "source"],
)


def structure_scores(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return the scores of each trial: group, case, structure, method, `SCORES`, ``seconds``, ``over_time``."""
    rows = []
    for trial in trials:
        target, seconds = trial.target, sum(step.seconds or 0.0 for step in trial.steps)
        scores = _scores([step.dice for step in trial.steps], [step.nsd or 0.0 for step in trial.steps])
        key = {"group": target.group, "case": target.case, "structure": target.structure, "method": trial.method}
        rows.append(key | scores | {"seconds": seconds, "over_time": seconds > TIME_LIMIT})
    return pd.DataFrame(rows)


def case_scores(clicks: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of each case, of which the challenge takes the mean: group, case, method and `SCORES`.

    Args:
        clicks: table from `click_table`, with surface Dice.
    """
    rows = []
    for (group, case, method), steps in clicks.groupby(["group", "case", "method"], sort=False):
        means = steps.groupby("clicks")[["dice", "nsd"]].mean()
        key = {"group": group, "case": case, "method": method}
        rows.append(key | _scores(means["dice"].to_list(), means["nsd"].to_list()))
    return pd.DataFrame(rows)


def _scores(dice: Sequence[float], nsd: Sequence[float]) -> dict[str, float]:
    counted = [n if d > MIN_DICE_FOR_NSD else 0.0 for d, n in zip(dice, nsd, strict=True)]
    areas = (float(trapezoid(values[-CLICKS:])) for values in (dice, counted))
    return dict(zip(SCORES, (*areas, dice[-1], counted[-1]), strict=True))
