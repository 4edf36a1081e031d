"""How much of the imaging style a linear classifier still finds in features."""

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


class Probed(NamedTuple):
    """Result of a style probe.

    Attributes:
        accuracy: on images that it was not fitted to.
        chance: of whoever always says the style that is most frequent there.
    """

    accuracy: float
    chance: float


def probe_style(
    features: NDArray[np.floating],
    styles: Sequence[str],
    held_out: NDArray[np.floating],
    held_out_styles: Sequence[str],
) -> Probed:
    """Fit a logistic regression that tells styles by features, and test it on other images.

    Args:
        features: NxC, one row an image or structure.
        styles: N, at least two different ones.
        held_out: MxC, of images of other patients.
        held_out_styles: M, each of them among ``styles``.

    Raises:
        InputError: there is one style only, or one was not fitted.
    """
    if len(set(styles)) < 2:
        raise InputError("A style probe needs features of at least two styles.")
    if unknown := set(held_out_styles) - set(styles):
        raise InputError(f"The style probe was not fitted to {', '.join(sorted(unknown))}, which it is tested on.")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    classifier.fit(features, styles)
    accuracy = float((classifier.predict(held_out) == np.asarray(held_out_styles)).mean())
    _, counts = np.unique(held_out_styles, return_counts=True)
    return Probed(accuracy, float(counts.max() / counts.sum()))
