"""Class activation maps as masks: what they are, what is judged, and that no mask is learnt."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from busi_lab.errors import UserError
from busi_lab.models import Outputs, Wanted, build_network, network_settings
from busi_lab.tasks import LocalizationTask
from busi_lab.tasks.localization import judge, largest_part

SIZE = 64
SETTINGS: dict[str, Any] = {
    "model": {"name": "pooled_classifier", "backbone": "test_resnet", "weights": "none", "in_chans": 1},
    "image_size": SIZE,
    "optim": {"name": "adam", "lr": 1e-3, "weight_decay": 0.0, "backbone_lr": None},
    "scheduler": {"name": "none"},
}


def build(backbone: str, **settings: Any) -> Any:
    model = {"name": "pooled_classifier", "weights": "none", "backbone": backbone, **settings}
    return build_network(network_settings(model), Wanted(3, False, SIZE))


class Fixed(nn.Module):
    """Answers with the same logits and maps to whatever image."""

    def __init__(self, called: int, maps: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answer = Outputs(nn.functional.one_hot(torch.tensor([called]), 3).float(), class_maps=maps[None])

    def forward(self, image: torch.Tensor) -> Outputs:
        return self.answer if not self.training else self.answer._replace(class_maps=None)


@pytest.mark.parametrize("stride", [32, 16])
@pytest.mark.parametrize("backbone", ["mobilenetv1_100", "resnet34", "googlenet", "vgg16"])
def test_the_mean_of_a_map_is_its_logit(backbone: str, stride: int) -> None:
    built = build(backbone, in_chans=1, output_stride=stride)
    network = built.network.eval()
    nn.init.normal_(network.head.bias)
    with torch.no_grad():
        outputs = network(torch.randn(2, 1, SIZE, SIZE))
    assert outputs.class_maps.shape == (2, 3, SIZE // stride, SIZE // stride)
    assert torch.allclose(outputs.class_maps.mean(dim=(2, 3)) + network.head.bias, outputs.classes, atol=1e-4)
    assert network.train()(torch.randn(2, 1, SIZE, SIZE)).class_maps is None
    assert built.heads == (network.head,)


def test_it_answers_as_timms_classifier_with_its_weights() -> None:
    theirs = timm.create_model("mobilenetv1_100", num_classes=3).eval()
    ours = build("mobilenetv1_100").network.eval()
    ours.backbone.model.load_state_dict({k: v for k, v in theirs.state_dict().items() if "classifier" not in k})
    ours.head.load_state_dict(theirs.get_classifier().state_dict())
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.allclose(ours(image).classes, theirs(image), atol=1e-5)


def test_vgg16_has_no_dense_layers_and_googlenet_the_published_size() -> None:
    counts = {name: sum(p.numel() for p in build(name).network.parameters()) for name in ("vgg16", "googlenet")}
    # VGG16's convolutions 14,714,688; GoogLeNet as torchvision counts it with 1,000 classes, 6,624,904, of which its
    # last layer has 1,025,000; a new layer of 3 classes has 3 weights a feature and 3 biases
    assert counts == {"vgg16": 14_714_688 + 3 * 512 + 3, "googlenet": 6_624_904 - 1_025_000 + 3 * 1024 + 3}


def test_a_backbone_without_maps_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.output_stride=8: expected 32, or 16"):
        build("resnet34", output_stride=8)
    with pytest.raises(UserError, match=r"expected feature maps \[1, F, h, w\], found"):
        build("test_vit", in_chans=1)


def place(called: int = 1) -> LocalizationTask:
    """A task whose network sees a strong place at the upper left and a weak one, of another class a third."""
    maps = torch.zeros(3, 8, 8)
    maps[1, 1:3, 1:3] = 10.0
    maps[1, 5:7, 5] = 4.0
    maps[1] -= 5.0
    maps[0, 6, 0] = 100.0
    task = LocalizationTask(**SETTINGS)
    task.network = Fixed(called, maps)
    return task.eval()


def test_the_mask_is_the_largest_part_of_the_called_classs_map() -> None:
    task = place()
    image = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    mask = task.predict_masks(image)[0, 0].numpy()
    assert mask[8:24, 8:24].all()  # two cells of eight pixels each, at a fifth of the maximum a little more
    assert not mask[32:, 32:].any() and not mask[40:, :24].any()
    assert 16 * 16 < mask.sum() < 32 * 32
    task.masks.threshold.fill_(0.3)
    assert task.predict_masks(image).sum() < mask.sum()


def test_a_scan_called_normal_has_no_lesion() -> None:
    task = place(called=2)
    assert not task.predict_masks(torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)).any()


def test_masks_are_judged_and_not_learnt() -> None:
    task = LocalizationTask(**SETTINGS)
    image = torch.randint(0, 256, (2, 1, SIZE, SIZE), dtype=torch.uint8)
    batch = {"image": image, "label": torch.tensor([0, 1]), "case_id": ["a", "b"]}
    losses = []
    for fill in (0, 1):
        batch["mask"] = torch.full((2, 1, SIZE, SIZE), fill, dtype=torch.uint8)
        losses.append(task.training_step(batch, 0))
        assert "lesion" not in task._gathered["train"]
    assert torch.equal(losses[0], losses[1])
    task.eval()
    task.on_test_epoch_start()
    with torch.no_grad():
        task.test_step(batch, 0)
    assert not task.lesion_probabilities and task.outlined_lesions("test") == {}  # a map is no probability
    assert len(task.predicted_masks()) == 2
    assert {"peak_hit", "box_iou", "centre_hit", "lesion"} <= set(task._gathered["test"])


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[rows, columns] = True
    return mask


def test_hits_and_boxes_by_hand() -> None:
    truth = box(slice(0, 10), slice(0, 10)) | box(slice(15, 20), slice(15, 20))
    shares = np.zeros((20, 20), np.float32)
    shares[9, 9] = 1
    # 10 x 5 of the first lesion's 10 x 10 is covered, and 10 x 5 beside it: 50 / 150; the centre lies in column 9.5
    peak, overlap, centre = judge(shares, box(slice(0, 10), slice(5, 15)), truth)
    assert (peak, overlap, centre) == (1.0, pytest.approx(50 / 150), 1.0)
    shares[12, 12] = 2
    assert judge(shares, box(slice(15, 20), slice(15, 20)), truth) == (0.0, 1.0, 1.0)  # the second lesion fits
    assert judge(shares, box(slice(11, 13), slice(11, 13)), truth) == (0.0, 0.0, 0.0)
    assert judge(shares, np.zeros_like(truth), truth) == (0.0, 0.0, 0.0)
    assert np.isnan(judge(shares, truth, np.zeros_like(truth))).all()


def test_the_largest_part_is_kept() -> None:
    large, small = box(slice(2, 8), slice(2, 8)), box(slice(12, 14), slice(12, 14))
    assert np.array_equal(largest_part(large | small), large)
    assert not largest_part(np.zeros((4, 4), bool)).any()


def test_what_it_does_not_take() -> None:
    with pytest.raises(UserError, match=r"task\.localize=gradcam: expected cam"):
        LocalizationTask(**SETTINGS, localize="gradcam")
    with pytest.raises(UserError, match=r"task\.share=1\.5: expected a share of the maximum"):
        LocalizationTask(**SETTINGS, share=1.5)
    without = {**SETTINGS, "model": {"name": "timm", "backbone": "test_resnet", "weights": "none"}}
    with pytest.raises(UserError, match=r"has no class activation maps.*set model=pooled_classifier"):
        LocalizationTask(**without)
