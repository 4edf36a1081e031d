"""The strategy *random*: next comes any study without an accepted label."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from strategies.studies import Studies


class RandomStudy(Strategy):
    """Gives a study at random; the longer ago one was given, the likelier it comes.

    In place of MONAI Label's, which fails where all studies were given within the last second.

    Args:
        studies: studies of the data store.
    """

    def __init__(self, studies: Studies) -> None:
        super().__init__("Any study without an accepted label, at random")
        self._studies = studies

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Choose a study; nothing if none is left."""
        left, now = self._studies.unlabelled(), time.time()
        if not left:
            return {}
        given = [max((each["ts"] for each in self._studies.given(name)), default=0) for name in left]
        weights = [max(1.0, now - time_given) for time_given in given]
        chosen = random.choices(range(len(left)), weights)[0]
        return {"id": left[chosen], "weight": weights[chosen]}
