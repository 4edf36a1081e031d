"""Several processes train as one: the same losses, gradients and weights for the same batch of all together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from causal_sam.training.processes import gathered, summed

TESTS = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
import ignite.distributed as idist
import torch
from ignite.engine import Events
from torch.nn.functional import normalize
from causal_sam.training.adapters import AdapterObjective, TrainingConfig, adapter_engine, batches
from causal_sam.training.style_pairs import labelled_slices
from causal_sam.sam.adapters import AdapterConfig
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact
from causal_sam.sam.label_prompt import new_label_prompt
from causal_sam.style import Acquisition
from two_blocks import NAMES, SIZE, two_blocks

def encode(texts):
    vectors = [torch.randn(8, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
    return normalize(torch.stack(vectors), dim=1)

def run(rank, folder):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    count = idist.get_world_size()
    config = TrainingConfig(
        steps=6, batch=16 // count, pairs=4 // count, decoded=4 // count, adapters=AdapterConfig(rank=2)
    )
    case = labelled_slices(*two_blocks(), NAMES, SIZE, acquisition=Acquisition("MR", sequence="T1"))
    model = CausalSam(build_compact(SIZE), "compact").eval()
    objective = AdapterObjective(model, new_label_prompt(model, 8), torch.eye(3, 8), config)
    losses = []
    engine = adapter_engine(objective)
    engine.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda trainer: losses.append(trainer.state.output))
    engine.run(batches([case], SIZE, encode, config, styled=True, seed=0))
    weights = {name: p.detach() for name, p in objective.named_parameters() if p.requires_grad}
    torch.save({"losses": losses, "weights": weights}, Path(folder) / f"{count}-{idist.get_rank()}.pt")

with idist.Parallel(backend="gloo" if len(sys.argv) > 2 else None) as parallel:
    parallel.run(run, sys.argv[1])
"""


@pytest.mark.slow
def test_one_process_and_two_give_the_same_losses_and_weights(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for before, after in (([], []), (launcher, ["gloo"])):
        command = [sys.executable, *before, str(script), str(tmp_path), *after]
        paths = filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
    one, *two = (torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert two[0]["losses"] == two[1]["losses"]
    for together, alone in zip(two[0]["losses"], one["losses"], strict=True):
        assert together == pytest.approx(alone, rel=1e-3, abs=1e-4)
    for name, weights in one["weights"].items():
        torch.testing.assert_close(two[0]["weights"][name], two[1]["weights"][name], rtol=0, atol=0)
        torch.testing.assert_close(two[0]["weights"][name], weights, rtol=1e-3, atol=1e-4)


def test_what_is_gathered_is_in_the_order_of_a_single_process() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    assert torch.equal(gathered(rows), rows)
    assert summed(rows) is rows
