"""Networks that give a class to every point: sizes, members, tiles; images and masks changed alike."""

import numpy as np
import pytest
import torch

from advisor.networks import decoder
from advisor.networks.decoder import DecoderNetwork, SceneShape
from advisor.networks.decoder_plan import decoder_parameters, decoder_plan_of
from advisor.tasks import SEGMENTATION, UNLABELLED, Masks
from advisor.training.augmentation import augmented_scenes, cropped
from advisor.training.targets import soft_dice

CONFIGURATION = {
    **dict(stages=3, blocks=1, block="residual", width=8, growth=2.0, kernel=3, pooling="max", squeeze=False),
    **dict(upsampling="resize", skips=True, deep_supervision=False, activation="relu", norm_layer="group"),
    **dict(weight_init="he_normal", output_init="same", dropout=0.0, crop=0),
}


def network(size=(20, 13), members=1, outputs=3, **changes) -> DecoderNetwork:
    shape = SceneShape(1, size)
    generator = torch.Generator().manual_seed(0)
    return shape.network(CONFIGURATION | changes, outputs, members=members, generator=generator)


@pytest.mark.parametrize("upsampling", ["resize", "transposed", "subpixel"])
@pytest.mark.parametrize("block", ["plain", "residual"])
def test_logits_have_the_size_of_the_image_and_the_plan_counts_the_weights(upsampling, block):
    made = network(upsampling=upsampling, block=block, blocks=2)
    assert made.eval()(torch.randn(1, 2, 1, 20, 13)).shape == (1, 2, 3, 20, 13)
    plan = decoder_plan_of(CONFIGURATION | {"upsampling": upsampling, "block": block, "blocks": 2}, 1, (20, 13))
    assert decoder_parameters(plan, 3) == sum(weight.numel() for weight in made.parameters())


def test_coarser_maps_are_trained_too_from_four_stages_on():
    made = network((32, 32), stages=4, deep_supervision=True)
    x = torch.randn(1, 2, 1, 32, 32)
    assert made.train()(x).shape == (1, 2, 9, 32, 32) and made.eval()(x).shape == (1, 2, 3, 32, 32)
    assert network(stages=3, deep_supervision=True).train()(torch.randn(1, 1, 1, 20, 13)).shape[2] == 3


def test_no_member_sees_anothers_numbers():
    made = network((16, 16), members=2).eval()
    x = torch.randn(2, 1, 1, 16, 16)
    before = made(x)[0]
    x[1] += 1
    assert torch.equal(made(x)[0], before)


def test_large_images_are_predicted_in_tiles_that_overlap(monkeypatch):
    made = network((16, 40), stages=2, norm_layer="none").eval()
    x = torch.randn(1, 1, 1, 16, 40)
    whole = made(x)
    monkeypatch.setattr(decoder, "TILE", 24)
    tiled = made(x)
    assert tiled.shape == whole.shape and not torch.equal(tiled, whole)
    assert (tiled - whole).abs().mean() < 0.2 * whole.abs().mean()


def test_images_and_masks_are_changed_alike():
    codes = torch.zeros(1, 6, 24, 24, dtype=torch.uint8)
    codes[:, :, 6:14, 4:18] = 1
    image = codes.float().unsqueeze(2)
    changes = dict(flip="both", shift=0.1, rotation=20.0, zoom=0.1, brightness=0.0)
    x, target = augmented_scenes(image, codes, changes, torch.Generator().manual_seed(0))
    known = target != UNLABELLED
    assert not torch.equal(target, codes) and known.any()
    assert ((x[:, :, 0] > 0.5)[known] == target[known].bool()).float().mean() > 0.97


def test_crops_keep_image_and_mask_together_and_find_what_is_rare():
    codes = torch.zeros(1, 40, 64, 64, dtype=torch.uint8)
    codes[:, :, 50:53, 50:53] = 1
    image = codes.float().unsqueeze(2)
    x, target = cropped(image, codes, 16, 1.0, torch.Generator().manual_seed(0))
    assert target.shape == (1, 40, 16, 16) and torch.equal(x[:, :, 0], target.float())
    assert (target == 1).flatten(2).any(dim=2).all()
    _, anywhere = cropped(image, codes, 16, 0.0, torch.Generator().manual_seed(0))
    assert (anywhere == 1).flatten(2).any(dim=2).float().mean() < 0.5
    assert cropped(image, codes, 64, 1.0, torch.Generator())[1] is codes


def test_scores_of_masks():
    truth = np.zeros((2, 4, 4), np.uint8)
    truth[0, :2], truth[1] = 1, UNLABELLED
    truth[1, 0, 0] = 1
    masks = Masks(truth)
    right = np.stack([truth != 1, truth == 1], axis=1) * 0.8 + 0.1
    assert np.allclose(SEGMENTATION.row_losses(masks, right), -np.log(0.9))
    scored = SEGMENTATION.metrics(masks, right)
    assert scored["mean_iou"] == scored["mean_dice"] == scored["point_accuracy"] == 1
    wrong = SEGMENTATION.metrics(masks, right[:, ::-1])
    assert wrong["mean_iou"] == 0 and wrong["loss"] > scored["loss"]
    constant = SEGMENTATION.constant_scores(masks, 2)
    assert np.isclose(SEGMENTATION.row_losses(masks, constant)[0], -(np.log(8 / 17) + np.log(9 / 17)) / 2)
    assert not SEGMENTATION.known(Masks(np.full((1, 2, 2), UNLABELLED, np.uint8)))[0]


def test_soft_dice_is_one_where_all_is_right():
    target = torch.randint(0, 2, (1, 2, 8, 8), dtype=torch.uint8)
    sure = torch.stack([target == 0, target == 1], dim=2).float() * 40
    assert torch.allclose(soft_dice(sure, target), torch.ones(1), atol=1e-3)
    assert float(soft_dice(-sure, target)) < 0.05
