"""The volume context with an untrained network: preparation, prompts and names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from causal_sam.imaging import Volume
from causal_sam.prompting.slices import VolumeSlices
from causal_sam.sam.embedding import Embedding
from causal_sam.volume.context import ContextModel, VolumeContext, read_names
from causal_sam.volume.corrections import CorrectionModel, gather_evidence
from causal_sam.volume.grid import SliceGeometry
from causal_sam.volume.network import Context, ContextNetwork, FeatureStack, GridGeometry
from causal_sam.volume.prompt_maps import MAP_CHANNELS, GridPrompts, draw_prompts

CELL_MM = (3.0, 4.0, 4.0)


def vectors_of(texts):
    generator = torch.Generator().manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(len(texts), 384, generator=generator), dim=1)


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "bfloat16"])
def model(request):
    """A model as on processors with and without bfloat16 units, whichever this one is."""
    torch.manual_seed(0)
    model = ContextModel(ContextNetwork(), ["liver", "aorta"], ["liver"], vectors_of)
    model.in_bfloat16 = request.param
    return model


@pytest.fixture
def context(model):
    return context_of(model)


def context_of(model):
    volume = Volume(np.zeros((50, 40, 12), np.float32), np.diag([4.0, 4.0, 5.0, 1.0]))
    slices = VolumeSlices(volume, "axial", 256)
    calls = []

    def embedding(index):
        calls.append(index)
        generator = torch.Generator().manual_seed(index)
        sizes = ((128, 32), (17, 128), (32, 64))
        features, skip2, skip4 = (torch.randn(1, c, n, n, generator=generator) for c, n in sizes)
        return Embedding(features, (skip2, skip4))

    geometry = SliceGeometry(slices.frame, slices.height, slices.width)
    made = VolumeContext(model, geometry, embedding, lambda index: np.full((40, 50), 0.5, np.float32))
    return made, calls


def test_each_slice_is_encoded_once(context):
    made, calls = context
    assert not made.is_ready
    made.prepare()
    made.prepare()
    made.segment([(20, 20, 5)])
    assert made.is_ready
    assert sorted(calls) == sorted(made.grid.indices)
    assert made.nbytes > 0


def test_preparation_can_be_ended_and_begun_again(context):
    made, _ = context

    def end(done):
        if done == 3:
            raise RuntimeError("left")

    with pytest.raises(RuntimeError, match="left"):
        made.prepare(end)
    assert not made.is_ready
    made.prepare()
    assert made.is_ready


def test_several_may_prepare_it_side_by_side(context):
    made, calls = context
    done_by_first = []

    def meanwhile(done):
        done_by_first.append(done)
        if done == 1:
            made.prepare()

    made.prepare(meanwhile)
    assert made.is_ready
    assert done_by_first == [0, 1]  # it need not go on
    assert set(calls) == set(made.grid.indices)


def test_prompts_give_a_mask_on_a_grid(context):
    made, _ = context
    answer = made.segment([(20, 20, 5)], [(3, 3, 2)], box=(10, 30, 10, 30, 3, 8), mask=np.ones((50, 40, 12), bool))
    assert 0 <= answer.certainty <= 1
    assert answer.mask().shape == (50, 40, 12)
    assert set(answer.indices()) >= {n for n in range(12) if answer.mask()[..., n].any()}


def test_equal_prompts_give_equal_masks(context):
    made, _ = context
    first, second = (made.segment([(20, 20, 5)], name="liver").logits for _ in range(2))
    assert torch.equal(first, second)


def test_only_names_that_are_found_are_known(context):
    made, _ = context
    assert made.knows("Liver")
    assert not made.knows("aorta")  # trained, and of use beside a click
    assert made.model.trained_name("aorta") == "aorta"
    assert not made.knows("spleen")
    assert made.segment_named(["liver"])["liver"].logits.shape == made.grid.shape
    # A name that the network does not know changes nothing.
    assert torch.equal(made.segment([(20, 20, 5)], name="spleen").logits, made.segment([(20, 20, 5)]).logits)


def test_names_are_encoded_as_they_were_trained():
    asked = []

    def encode(names):
        asked.extend(names)
        return vectors_of(names)

    names = ["L1 vertebra", "femurs", "femur"]
    made, _ = context_of(ContextModel(ContextNetwork(), names, names, encode))
    made.segment_named(["vertebra L1", "Femurs"])
    assert asked == ["L1 vertebra", "femur"]  # of two spellings of a structure, the common one


def test_memory_is_counted_as_it_grows(context):
    made, _ = context
    assert made.nbytes == 0
    made.prepare()
    before = made.nbytes
    made.segment_named(["liver"])
    assert made.nbytes == before + made.grid.shape[0] * made.grid.shape[1] * made.grid.shape[2] * 4


def test_a_finer_grid_has_the_prompts_that_lie_in_it(context, monkeypatch):
    made, _ = context
    made.prepare()
    asked, network = [], made.model.network
    inside, far = (9, 31, 5), (45, 5, 10)
    z, y, x = made.grid.positions([inside])[0].round().int().tolist()

    def decode(context, prompts):
        asked.append(prompts)
        logits = torch.full(context.features.shape[2:], -1.0)
        if len(asked) == 1:
            logits[z, y - 1 : y + 2, x - 1 : x + 2] = 1.0
        return logits, torch.zeros(1)

    monkeypatch.setattr(network, "decode", decode)
    made.segment([inside], [(10, 31, 5), far])
    whole, fine = asked
    assert (len(whole.background), len(fine.background)) == (2, 1)
    asked.clear()
    made.segment([inside, far])
    assert len(asked) == 1  # the structure is larger than it looks


def test_maps_of_prompts():
    descriptors, brightness = torch.randn(1, 24, 6, 10, 12), torch.zeros(1, 2, 6, 10, 12)
    brightness[..., 2:5, 2:6, 2:6] = 0.8
    prompts = GridPrompts(torch.tensor([[3.0, 3.0, 3.0]]), torch.tensor([[0.0, 9.0, 11.0]]))
    maps = draw_prompts(descriptors, brightness, prompts, CELL_MM)
    assert maps.shape == (1, MAP_CHANNELS, 6, 10, 12)
    assert maps.isfinite().all()
    place = maps[0, 0]
    assert place[3, 3, 3] == 1
    assert place.argmax() == (3 * 10 + 3) * 12 + 3
    connected = maps[0, 9]
    assert connected[3, 4, 4] > 0.8
    assert connected[3, 9, 11] < 0.1


def test_maps_without_prompts_are_zero():
    maps = draw_prompts(torch.randn(1, 24, 3, 4, 5), torch.rand(1, 2, 3, 4, 5), GridPrompts(), CELL_MM)
    assert not maps.any()


@pytest.mark.parametrize(("count", "side"), [(1, 1), (1, 4), (2, 1), (3, 5)])
def test_the_smallest_volumes(model, count, side):
    stack = FeatureStack(
        torch.randn(count, 128, side, side),
        torch.randn(count, 32, 2 * side, 2 * side),
        torch.randn(count, 17, 4 * side, 4 * side),
        torch.rand(count, 1, 4 * side, 4 * side),
    )
    geometry = GridGeometry(CELL_MM, (0.0, 0.0, 0.0), (90.0, 100.0, 100.0), "axial")
    for stride in (4, 2):
        context: Context = model.network.encode(stack, geometry, stride)
        logits, certainty = model.network.decode(context, GridPrompts(torch.zeros(1, 3)))
        assert logits.shape == (count, side * 8 // stride, side * 8 // stride)
        assert certainty.ndim == 0


def test_thick_slices_are_not_joined(model):
    stack = FeatureStack(
        torch.randn(4, 128, 4, 4), torch.randn(4, 32, 8, 8), torch.randn(4, 17, 16, 16), torch.rand(4, 1, 16, 16)
    )
    thick = GridGeometry((40.0, 4.0, 4.0), (0.0, 0.0, 0.0), (160.0, 32.0, 32.0), "axial")
    assert model.network.encode(stack, thick, 4).features.shape[2:] == (4, 8, 8)


def test_names_are_kept_in_the_weights(tmp_path, model):
    from safetensors.torch import save_file

    path = tmp_path / "context.safetensors"
    weights = {name: value.half().contiguous() for name, value in model.network.state_dict().items()}
    save_file(weights, path, metadata={"names": "left kidney\nliver", "found": "liver"})
    assert read_names(path) == {"left kidney", "liver"}
    loaded = ContextModel.load(vectors_of, path)
    assert loaded.finds("livers")
    assert not loaded.finds("left kidney")
    assert loaded.trained_name("Kidney_left") == "left kidney"
    assert loaded.trained_name("spleen") is None


def test_the_network_is_small():
    assert sum(p.numel() for p in ContextNetwork().parameters()) <= 4_000_000


def test_a_click_deep_in_a_mask_means_more_of_it_than_one_near_its_border():
    shape, cell_mm = (9, 20, 20), (4.0, 4.0, 4.0)
    flat = torch.zeros(1, 1, *shape)
    context = Context(flat, flat.expand(-1, 8, -1, -1, -1), flat, flat.expand(-1, 2, -1, -1, -1), cell_mm)
    mask = torch.zeros(shape)
    mask[1:8, 4:16, 4:16] = 1
    removed = []
    for row in (5.0, 10.0):
        click = torch.tensor([[4.0, row, 10.0]])
        prompts = GridPrompts(background=click, mask=mask)
        undecided = 4 * mask - 2  # an answer that is not quite sure of the mask
        evidence = gather_evidence(context, prompts, click, False, undecided, undecided)
        logits = CorrectionModel.load().logits(evidence, is_foreground=False)
        assert ((logits > 0) <= (mask > 0)).all(), "a background click adds nothing"
        assert logits[4, int(row), 10] < 0
        removed.append(int(((logits < 0) & (mask > 0)).sum()))
    assert 0 < removed[0] < removed[1]


def test_a_correction_is_answered_on_a_grid_that_holds_the_mask(context):
    made, _ = context
    mask = np.zeros((50, 40, 12), bool)
    mask[5:45, 5:35, 2:10] = True
    coarse = made.correct([(20, 20, 5)], [(40, 30, 8)], None, mask, [(40, 30, 8)])
    assert coarse.grid == made.grid
    assert coarse.logits.shape == made.grid.shape
    assert np.isfinite(coarse.logits.numpy()).all()
