"""Linear probe that measures how well features predict the imaging style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from causal_sam.errors import InputError

MAX_ITERATIONS = 2000


class ProbeResult(NamedTuple):
    """Result of a style probe.

    Attributes:
        accuracy: accuracy on held-out images.
        chance: share of the most frequent style among them.
    """

    accuracy: float
    chance: float


def probe_style(
    features: NDArray[np.floating],
    styles: Sequence[str],
    held_out: NDArray[np.floating],
    held_out_styles: Sequence[str],
) -> ProbeResult:
    """Fit a logistic regression that predicts styles from features, and test it on held-out images.

    Args:
        features: NxC features of images or structures.
        styles: N styles, at least two different ones.
        held_out: MxC features of images of other patients.
        held_out_styles: M styles, each among ``styles``.

    Raises:
        InputError: there is only one style, or a held-out style is unknown.
    """
    if len(set(styles)) < 2:
        raise InputError("A style probe needs features of at least two styles.")
    if unknown := set(held_out_styles) - set(styles):
        raise InputError(f"The style probe was not fitted to {', '.join(sorted(unknown))}, which it is tested on.")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    classifier.fit(features, styles)
    accuracy = float((classifier.predict(held_out) == np.asarray(held_out_styles)).mean())
    _, counts = np.unique(held_out_styles, return_counts=True)
    return ProbeResult(accuracy, float(counts.max() / counts.sum()))
