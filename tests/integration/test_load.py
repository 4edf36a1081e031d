"""Many clients at once, beside a batch and a training, get what each would get alone, and no label is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_server import load


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_many_clients_get_what_each_would_get_alone(tmp_path: Path) -> None:
    assert load(tmp_path, clients=4, count=48, seed=0) == []
