"""Losses that need no annotation: their values, and what they leave alone."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from busi_lab.errors import UserError
from busi_lab.models.interface import Outputs
from busi_lab.summary import TeacherRecord
from busi_lab.tasks import BaseTask, ClassificationTask, perturbation
from busi_lab.tasks.consistency import MeanTeacher, PseudoLabels, make_consistency
from busi_lab.tasks.distillation import Distillation
from busi_lab.tasks.guidance import Guidance
from busi_lab.tasks.perturbation import perturbed

IMAGES = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Says(nn.Module):
    """A stand-in for a task that always says the same."""

    def __init__(self, classes: Tensor | None = None, masks: Tensor | None = None, step: int = 10) -> None:
        super().__init__()
        self.says = Outputs(classes, masks)
        self.network, self.image_size, self.device = nn.BatchNorm1d(1), 32, torch.device("cpu")
        self.trainer, self.global_step = SimpleNamespace(estimated_stepping_batches=10), step
        self.seen: list[Tensor] = []
        self.modes: list[bool] = []

    def forward(self, image: Tensor) -> Outputs:
        self.seen.append(image)
        self.modes.append(self.training)
        return self.says


def teach(teacher: Any, temperature: float = 2.0) -> Distillation:
    return Distillation(teacher, 3.0, temperature, TeacherRecord())


def test_a_student_that_agrees_has_nothing_to_learn() -> None:
    logits = torch.randn(8, 3)
    masks = torch.full((8, 1, 32, 32), 30.0)
    loss = teach(Says(logits, masks)).loss(Says(logits, masks), {"image": IMAGES, "unlabelled": IMAGES})
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_the_loss_is_that_of_softened_probabilities() -> None:
    teacher, student = torch.tensor([[2.0, 0.0, 0.0]] * 4), torch.zeros(4, 3)
    target = (torch.tensor([2.0, 0, 0]) / 2).softmax(0)
    expected = 3.0 * 4 * float((target * (target.log() - torch.log(torch.tensor(1 / 3)))).sum())
    assert float(teach(Says(teacher)).loss(Says(student), {"image": IMAGES})) == pytest.approx(expected, rel=1e-5)
    lesion, mask = torch.zeros(4, 1, 16, 16), torch.ones(4, 1, 32, 32)
    expected = 3.0 * float(F.binary_cross_entropy_with_logits(mask, torch.full_like(mask, 0.5)))
    loss = teach(Says(masks=lesion)).loss(Says(masks=mask), {"image": IMAGES})
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_sees_scans_at_its_own_size_and_is_never_trained() -> None:
    teacher, student = Says(torch.zeros(8, 3)), Says(torch.zeros(8, 3))
    teacher.image_size = 64
    guide = teach(teacher)
    guide.begin(student)
    guide.loss(student, {"image": IMAGES, "unlabelled": IMAGES})
    assert [tuple(seen.shape) for seen in (teacher.seen[0], student.seen[0])] == [(8, 1, 64, 64), (8, 1, 32, 32)]
    assert teacher.seen[0].dtype == torch.uint8
    assert not teacher.network.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_only_what_is_sure_becomes_a_pseudo_label() -> None:
    guide = PseudoLabels(1.0, 0.0, threshold=0.9)
    sure, unsure = [9.0, 0.0, 0.0], [0.1, 0.0, 0.0]
    task = Says(torch.tensor([sure, sure, unsure, unsure]))
    loss = guide.loss(task, {"unlabelled": IMAGES})
    expected = 2 * float(F.cross_entropy(torch.tensor([sure]), torch.tensor([0]))) / 4
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert task.modes == [False, True]  # what it says in use is learnt from a disturbed copy
    lesion = torch.zeros(4, 1, 32, 32)
    assert float(guide.loss(Says(masks=lesion), {"unlabelled": IMAGES})) == 0
    lesion[:, :, :16] = 9.0
    expected = float(F.binary_cross_entropy_with_logits(torch.tensor(9.0), torch.tensor(1.0))) / 2
    assert float(guide.loss(Says(masks=lesion), {"unlabelled": IMAGES})) == pytest.approx(expected, rel=1e-5)


def test_the_weight_grows_over_the_first_steps() -> None:
    lesion = torch.zeros(4, 1, 32, 32)
    lesion[:] = 9.0
    at = [
        float(PseudoLabels(1.0, 0.5, 0.9).loss(Says(masks=lesion, step=step), {"unlabelled": IMAGES}))
        for step in (0, 3, 5, 9)
    ]
    assert at[0] < at[1] < at[2]
    assert at[0] == pytest.approx(at[2] * torch.tensor(-5.0).exp().item(), rel=1e-4)
    assert at[2] == at[3]


def test_what_is_frozen_is_in_evaluation_after_a_pseudo_label() -> None:
    task = small_task(freeze=["conv_stem", "bn1"])
    task.trainer = SimpleNamespace(estimated_stepping_batches=10, global_step=0)  # type: ignore[assignment]
    before = copy.deepcopy(task.network.state_dict())
    PseudoLabels(1.0, 0.0, 0.5).loss(task, {"unlabelled": IMAGES})  # type: ignore[arg-type]
    network: Any = task.network
    assert not network.bn1.training and network.bn2.training
    assert torch.equal(before["bn1.running_mean"], network.bn1.running_mean)
    assert not torch.equal(before["bn2.running_mean"], network.bn2.running_mean)


def small_task(**settings: Any) -> BaseTask:
    model = {"name": "timm", "backbone": "test_efficientnet", "weights": "none", "in_chans": 1, **settings}
    return ClassificationTask(model, 32, {"name": "adam", "lr": 1e-3, "weight_decay": 0.0}, {"name": "none"})


def test_the_mean_teacher_follows_the_network_and_is_saved() -> None:
    task = small_task()
    stand_in = SimpleNamespace(network=task.network, global_step=0)
    guide = MeanTeacher(1.0, 0.3)
    guide.begin(stand_in)  # type: ignore[arg-type]
    before = copy.deepcopy(guide.state())
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.add_(1.0)
    guide.after_step(stand_in)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], value) for name, value in guide.state().items()), "no step was made"
    stand_in.global_step = 1
    guide.after_step(stand_in)  # type: ignore[arg-type]
    after = guide.state()
    name = next(name for name, _ in task.network.named_parameters())
    assert torch.allclose(after[name], before[name] + 1 - 2 / 11, atol=1e-6)
    other = MeanTeacher(1.0, 0.3)
    other.restore(after)
    other.begin(stand_in)  # type: ignore[arg-type]
    assert all(torch.equal(after[name], value) for name, value in other.state().items())


def test_the_mean_teacher_of_a_half_network_takes_small_steps() -> None:
    """In 8 bits, 1 % of a step by 1/64 would be lost: the average is that of 32 bits, and answers in the network's."""
    network = nn.Linear(1, 1, bias=False).bfloat16()
    network.weight.data.fill_(1.0)
    stand_in: Any = SimpleNamespace(network=network, global_step=0, scale=lambda image: image)
    guide = MeanTeacher(1.0, 0.3)
    guide.begin(stand_in)
    network.weight.data.fill_(1 + 1 / 64)
    expected = 1.0
    for step in range(1, 201):
        stand_in.global_step = step
        guide.after_step(stand_in)
        expected += (1 + 1 / 64 - expected) * (1 - min(0.99, (1 + step) / (10 + step)))
    average = guide.state()["weight"]
    assert average.dtype == torch.float32
    assert average.item() == pytest.approx(expected, abs=1e-6)
    answer: Any = guide._target(stand_in, torch.ones(1, 1, dtype=torch.bfloat16))
    assert answer.dtype == torch.bfloat16 and answer.item() == average.bfloat16().item()
    again = MeanTeacher(1.0, 0.3)
    again.restore(guide.state())
    again.begin(stand_in)
    assert again.state()["weight"].item() == average.item()


def test_a_box_has_the_mean_of_what_it_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GAIN", "GAMMA", "NOISE"):
        monkeypatch.setattr(perturbation, name, 0.0)
    changed = (found := perturbed(IMAGES, 3)) != IMAGES
    for image, scan, box in zip(found[:, 0], IMAGES[:, 0], changed[:, 0], strict=True):
        rows, columns = (box.any(dim=side).nonzero().flatten() for side in (1, 0))
        part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert image[part].shape == (10, 10)  # 0.3 of 32
        assert image[part].unique().tolist() == [int(scan[part].float().mean())]


def test_a_disturbed_scan_stays_where_it_is_and_repeats() -> None:
    torch.manual_seed(0)
    scans = torch.full((3, 1, 40, 40), 100, dtype=torch.uint8)
    scans[:, :, 10:20] = 200
    first, second, other = perturbed(scans, 5), perturbed(scans, 5), perturbed(scans, 6)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(scans, torch.full_like(scans, 100).index_fill(2, torch.arange(10, 20), 200)), "not changed"
    brighter = first[:, :, 10:20].float().mean(dim=(1, 2, 3)) > first[:, :, 25:].float().mean(dim=(1, 2, 3))
    assert bool(brighter.all())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"semi": "fixmatch"}, "task.semi=fixmatch: expected none or mean_teacher or pseudo_label"),
        ({"semi_threshold": 0.3}, "task.semi_threshold=0.3: expected a number, 0.5 to 1"),
        ({"semi_weight": -1}, "task.semi_weight=-1: expected a number, 0 or more"),
        ({"teacher": 5}, "task.teacher=5: expected null or the directory of a finished run"),
        ({"teacher_temperature": 0}, "task.teacher_temperature=0: expected more than 0"),
        ({"teacher_weight": True}, "task.teacher_weight=True: expected a number"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Guidance(**settings)
    assert make_consistency(Guidance()) is None
