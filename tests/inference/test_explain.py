"""What speaks for a class: which features Grad-CAM takes, what the maps show, and how they are measured."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from busi_lab import predict
from busi_lab.classes import BUSI
from busi_lab.data.scan import Gray
from busi_lab.errors import UserError
from busi_lab.inference.explain import METHODS, Explainer, energy_inside, last_features, pointing_hit
from busi_lab.models import Outputs
from busi_lab.tasks import BaseTask, ClassificationTask, MultiTask
from tests.inference.small_runs import make_classifier, make_segmenter, make_task, save_run, scan


def classifier(backbone: str, size: int = 64, **model: Any) -> BaseTask:
    task: BaseTask = make_task(ClassificationTask, size, name="timm", backbone=backbone, **model)
    return task


def joint(size: int = 64, **model: Any) -> BaseTask:
    task: BaseTask = make_task(MultiTask, size, **model)
    return task


TASKS = {
    "mobilenetv1": (lambda: classifier("mobilenetv1_100"), (1024, 2)),
    "resnet18": (lambda: classifier("resnet18"), (512, 2)),
    "inception_v3": (lambda: classifier("inception_v3", 128), (2048, 2)),
    "vgg11": (lambda: classifier("vgg11"), (512, 2)),
    "convnext": (lambda: classifier("convnext_atto"), (320, 2)),
    "custom_cnn": (make_classifier, (128, 2)),
    "frozen": (lambda: classifier("resnet18", freeze="backbone"), (512, 2)),
    "mobilenet_unet": (lambda: joint(name="mobilenet_unet"), (1024, 2)),
    "padded": (lambda: joint(80, name="mobilenet_unet"), (1024, 3)),
    "smp": (lambda: joint(name="smp", arch="Unet", encoder="resnet18"), (512, 2)),
}
"""Tasks, and channels and side of the last features before pooling."""


@pytest.mark.parametrize("name", TASKS)
def test_gradcam_looks_at_the_last_features(name: str) -> None:
    build, (channels, side) = TASKS[name]
    shapes: list[tuple[int, ...]] = []
    with torch.device("meta"):  # shapes alone are asked
        task = build()
        features = last_features(task)
        assert not any(features is module for head in task.head_modules for module in head.modules())
        features.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
        task(torch.zeros(1, 1, task.image_size, task.image_size, dtype=torch.uint8))
    assert shapes == [(1, channels, side, side)]


def test_features_are_those_behind_the_last_sum_and_not_a_branch_of_it() -> None:
    alone: Any = TASKS["resnet18"][0]()
    assert last_features(alone) is alone.network.layer4
    shared: Any = TASKS["smp"][0]()
    assert last_features(shared) is shared.network.network.encoder.layer4
    inception: Any = TASKS["inception_v3"][0]()
    assert last_features(inception) is inception.network.Mixed_7c


@pytest.mark.parametrize("name", ["mobilenetv1", "frozen", "padded", "smp", "custom_cnn"])
def test_maps_have_the_scans_size_and_leave_no_gradients(name: str) -> None:
    task = TASKS[name][0]()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8)
    for label in BUSI.names:
        heat = Explainer([task], ["gradcam"]).explain(pixels, label)["gradcam"]
        assert (heat.shape, heat.dtype) == ((40, 50), np.float32)
        assert 0 <= heat.min() <= heat.max() <= 1
    assert not any(parameter.grad is not None for parameter in task.parameters())


@pytest.mark.parametrize(("backbone", "size"), [("test_vit", 160), ("swin_tiny_patch4_window7_224", 224)])
def test_transformers_are_refused_by_gradcam(backbone: str, size: int) -> None:
    with pytest.raises(UserError, match=f"convolutional features, which {backbone} lacks; use occlusion"):
        Explainer([classifier(backbone, size)], ["gradcam"])


def test_occlusion_suits_a_transformer() -> None:
    heat = Explainer([classifier("test_vit", 160)], ["occlusion"]).explain(spots((8, 12))[0], "benign")["occlusion"]
    assert heat.shape == (64, 96)
    assert 0 <= heat.min() <= heat.max() <= 1


class Seer(nn.Module):
    """Features are the image (black is 0, white 1) and its negative; each logit is a weighted mean of them."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, kernel_size=1)
        self.features.weight.data = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
        self.features.bias.data = torch.tensor([0.0, 1.0])
        self.head = nn.Linear(weights[0].numel(), 3, bias=False)
        self.head.weight.data = 8 * weights.flatten(1) / weights[0, 0].numel()

    def forward(self, image: Tensor) -> Outputs:
        return Outputs(classes=self.head(self.features(image).flatten(1)))


def seeing(malignant: tuple[slice, slice], feature: int = 0, sign: float = 1.0) -> ClassificationTask:
    """A task whose malignant logit is the mean of one of the two features in a part of the 32 x 32 input."""
    task: ClassificationTask = make_task(ClassificationTask, name="custom_cnn", backbone=None, in_chans=1)
    weights = torch.zeros(3, 2, 32, 32)
    weights[BUSI.names.index("malignant"), feature][malignant] = sign
    task.network = Seer(weights)
    task._heads = (task.network.head,)
    return task


ANYWHERE = (slice(None), slice(None))
RIGHT_TOP = (slice(0, 16), slice(16, 32))


def spots(*corners: tuple[int, int]) -> tuple[Gray, NDArray[np.bool_]]:
    """Bright spots of 16 x 24 pixels on black, 64 pixels high and 96 wide, and where they are."""
    pixels = np.zeros((64, 96), np.uint8)
    for top, left in corners:
        pixels[top : top + 16, left : left + 24] = 255
    return pixels, pixels > 0


@pytest.mark.parametrize("method", METHODS)
def test_maps_show_what_the_network_looks_at(method: str) -> None:
    pixels, spot = spots((8, 60))
    bright, dark = (
        Explainer([seeing(ANYWHERE, feature)], [method]).explain(pixels, "malignant")[method] for feature in (0, 1)
    )
    assert pointing_hit(bright, spot)
    assert not pointing_hit(dark, spot)
    assert energy_inside(bright, spot) > 2 * spot.mean()
    assert energy_inside(dark, spot) < spot.mean() / 2


def test_occlusion_finds_the_corner_that_the_network_looks_at() -> None:
    pixels, _ = spots((8, 12), (8, 60), (40, 12), (40, 60))
    corner = np.zeros((64, 96), bool)
    corner[:32, 48:] = True
    heat = Explainer([seeing(RIGHT_TOP)], ["occlusion"]).explain(pixels, "malignant")["occlusion"]
    assert pointing_hit(heat, corner)
    assert energy_inside(heat, corner) > 0.9


def test_maps_of_several_runs_are_averaged_and_each_method_counts_once() -> None:
    corner, other = seeing(RIGHT_TOP), seeing(RIGHT_TOP, sign=-1)
    pixels, _ = spots((8, 60))
    one, two = (Explainer([task], ["occlusion"]).explain(pixels, "malignant")["occlusion"] for task in (corner, other))
    both = Explainer([corner, other], ["occlusion", "occlusion"]).explain(pixels, "malignant")
    assert both.keys() == {"occlusion"}
    assert both["occlusion"] == pytest.approx((one + two) / 2, abs=1e-6)


def test_measures_by_hand() -> None:
    heat = np.array([[0.0, 0.5], [1.0, 0.5]], np.float32)
    left = np.array([[True, False], [True, False]])
    assert pointing_hit(heat, left)
    assert not pointing_hit(heat, ~left)
    assert energy_inside(heat, left) == pytest.approx(0.5)
    assert energy_inside(heat, np.array([[True, False], [False, False]])) == 0
    assert energy_inside(heat, np.ones((2, 2), bool)) == pytest.approx(1)
    for flat in (np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)):
        assert not pointing_hit(flat, np.ones((2, 2), bool))
    assert energy_inside(np.zeros((2, 2), np.float32), left) == 0


def test_what_cannot_be_explained() -> None:
    for tasks in ([], [make_segmenter()], [make_classifier(), make_segmenter()]):
        with pytest.raises(UserError, match="explanations are of a class"):
            Explainer(tasks, ["gradcam"])
    with pytest.raises(UserError, match="explanation tea: expected gradcam or occlusion"):
        Explainer([make_classifier()], ["gradcam", "tea"])


def test_busi_predict_draws_maps(tmp_path: Path) -> None:
    run = save_run(tmp_path / "run", make_classifier())
    out = tmp_path / "out"
    arguments = ("--explain", "gradcam", "--explain", "occlusion", "--out", str(out))
    predict.main([str(scan(tmp_path / "scan.png")), "--run", str(run), *arguments])
    assert {path.name for path in out.iterdir()} == {
        *("scan.json", "scan_overlay.png", "scan_gradcam.png", "scan_occlusion.png", "predictions.csv")
    }


def test_without_captum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    run = save_run(tmp_path / "run", make_classifier())
    arguments = ("--explain", "gradcam", "--out", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as stopped:
        predict.main([str(scan(tmp_path / "scan.png")), "--run", str(run), *arguments])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: explanations need Captum: pip install 'busi-lab[explain]'\n"
    assert not (tmp_path / "out").exists()
