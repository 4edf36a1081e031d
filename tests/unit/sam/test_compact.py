"""The compact model keeps SAM's contract and can be trained."""

from __future__ import annotations

import pytest
import torch

from causal_sam.errors import InputError
from causal_sam.sam.causal_sam import CausalSam
from causal_sam.sam.compact import build_compact, set_image_size

SIZE = 64


@pytest.fixture(scope="module")
def model() -> CausalSam:
    torch.manual_seed(0)
    return CausalSam(build_compact(SIZE), "compact").eval()


@pytest.fixture(scope="module")
def embedding(model):
    torch.manual_seed(1)
    with torch.inference_mode():
        return model.encode(torch.rand(1, 3, SIZE, SIZE))


def test_embedding_has_strides_8_2_and_4(embedding):
    assert embedding.features.shape == (1, 128, SIZE // 8, SIZE // 8)
    assert [tuple(skip.shape[-2:]) for skip in embedding.skips] == [(SIZE // 2,) * 2, (SIZE // 4,) * 2]
    assert embedding.nbytes == sum(4 * t.numel() for t in (embedding.features, *embedding.skips))


@pytest.mark.parametrize(
    "prompt",
    [
        {"points": torch.tensor([[[10.0, 20.0]]]), "point_labels": torch.tensor([[1.0]])},
        {"boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]])},
        {"mask_logits": torch.zeros(1, 1, SIZE // 2, SIZE // 2)},
        {"tokens": torch.ones(1, 2, 128)},
        {
            "points": torch.tensor([[[10.0, 20.0], [30.0, 3.0]]]),
            "point_labels": torch.tensor([[1.0, 0.0]]),
            "boxes": torch.tensor([[5.0, 6.0, 40.0, 50.0]]),
            "mask_logits": torch.ones(1, 1, SIZE // 2, SIZE // 2),
            "tokens": torch.ones(1, 1, 128),
        },
    ],
    ids=["click", "box", "mask", "token", "all"],
)
@pytest.mark.parametrize(("multimask", "masks"), [(False, 1), (True, 3)])
def test_every_prompt_gives_masks_and_iou(model, embedding, prompt, multimask, masks):
    with torch.inference_mode():
        decoded = model.decode(embedding, **prompt, multimask=multimask)
    assert decoded.logits.shape == (1, masks, model.mask_size, model.mask_size)
    assert decoded.iou.shape == (1, masks)
    assert torch.isfinite(decoded.logits).all()


def test_padding_points_change_nothing(model, embedding):
    point, label = torch.tensor([[[10.0, 20.0]]]), torch.tensor([[1.0]])
    box = torch.tensor([[5.0, 6.0, 40.0, 50.0]])
    padded = torch.cat([point, torch.zeros(1, 1, 2)], 1), torch.cat([label, -torch.ones(1, 1)], 1)
    encoder = model.sam.prompt_encoder
    with torch.inference_mode():
        guidance = encoder.guide(embedding.skips, (point, label), None, 1)
        torch.testing.assert_close(encoder.guide(embedding.skips, padded, None, 1), guidance)
        _, plain = encoder((point, label), box, None, guidance)
        _, with_padding = encoder(padded, box, None, guidance)
    assert torch.equal(plain, with_padding)


def test_clicks_are_drawn_where_they_are(model):
    maps = model.sam.prompt_encoder.draw(
        (torch.tensor([[[10.0, 20.0], [50.0, 6.0]]]), torch.tensor([[1.0, 0.0]])), None, 1
    )
    assert maps.shape == (1, 6, SIZE // 2, SIZE // 2)
    for channel, (x, y) in ((0, (10, 20)), (1, (50, 6)), (2, (10, 20)), (3, (50, 6))):
        row, column = divmod(int(maps[0, channel].argmax()), SIZE // 2)
        assert (row, column) == (y // 2, x // 2)
    assert not maps[0, 4:].any()


def test_many_prompts_share_one_slice(model, embedding):
    points = torch.tensor([[[10.0, 20.0]], [[40.0, 20.0]]])
    labels = torch.ones(2, 1)
    with torch.inference_mode():
        both = model.decode(embedding, points=points, point_labels=labels)
        second = model.decode(embedding, points=points[1:], point_labels=labels[1:])
    torch.testing.assert_close(both.logits[1:], second.logits)


def test_smaller_slices_are_padded_right_and_below(model):
    image = torch.rand(1, 3, 40, SIZE, generator=torch.Generator().manual_seed(2))
    # The model's normalisation puts zero, which pads, at middle grey.
    padded = torch.full((1, 3, SIZE, SIZE), 0.5)
    padded[..., :40, :] = image
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(image).features, model.encode(padded).features)


def test_the_brightness_of_the_slice_is_in_the_embedding(model):
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        brightness = model.encode(image).skips[0][0, -1]
    torch.testing.assert_close(brightness, torch.nn.functional.avg_pool2d(image[:, 1], 2)[0])


def test_all_masks_are_the_single_one_and_the_hypotheses(model, embedding):
    click = {"points": torch.tensor([[[10.0, 20.0]]]), "point_labels": torch.ones(1, 1)}
    with torch.inference_mode():
        everything = model.decode_all(embedding, **click)
        single, hypotheses = (model.decode(embedding, **click, multimask=many) for many in (False, True))
    assert torch.equal(everything.logits, torch.cat([single.logits, hypotheses.logits], 1))
    assert torch.equal(everything.iou, torch.cat([single.iou, hypotheses.iou], 1))


@pytest.mark.parametrize("shape", [(1, 3, SIZE + 1, SIZE), (1, 1, SIZE, SIZE), (3, SIZE, SIZE)])
def test_images_of_wrong_shape_are_refused(model, shape):
    with pytest.raises(InputError, match="Bx3xhxw"):
        model.encode(torch.zeros(shape))


def test_no_prompt_is_refused(model, embedding):
    with pytest.raises(InputError, match="at least one"):
        model.decode(embedding)


def test_encoder_hash_survives_use_and_sees_any_change(model, embedding):
    before = model.encoder_hash()
    with torch.inference_mode():
        model.encode(torch.rand(1, 3, SIZE, SIZE))
        model.decode(embedding, boxes=torch.tensor([[5.0, 6.0, 40.0, 50.0]]))
    assert model.encoder_hash() == before
    assert not any(p.requires_grad for p in model.sam.image_encoder.parameters())
    weight = next(model.sam.image_encoder.parameters())
    with torch.no_grad():
        weight.view(-1)[0] += 1e-3
        changed = model.encoder_hash()
        weight.view(-1)[0] -= 1e-3
    assert changed != before


def test_same_weights_work_at_another_size():
    torch.manual_seed(0)
    sam = build_compact(SIZE)
    keys = {k: v.shape for k, v in sam.state_dict().items()}
    set_image_size(sam, 96)
    model = CausalSam(sam, "compact").eval()
    with torch.inference_mode():
        decoded = model.decode(model.encode(torch.rand(1, 3, 96, 96)), boxes=torch.tensor([[5.0, 6.0, 40.0, 50.0]]))
    assert decoded.logits.shape[-1] == model.mask_size == 48
    assert {k: v.shape for k, v in model.sam.state_dict().items()} == keys
