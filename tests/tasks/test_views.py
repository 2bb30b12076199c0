"""A scan and its mirror image, averaged wherever a network is used."""

from pathlib import Path
from typing import Any

import pytest
import torch

from busi_lab.errors import UserError
from busi_lab.inference.explain import last_features
from busi_lab.run import members as reading
from busi_lab.run.members import Member, join_tasks, read_members
from busi_lab.tasks import LocalizationTask, MultiTask
from tests.tasks.test_mixing import make_mask_task
from tests.tasks.test_tasks import OPTIM, SCHEDULER, make_batches, make_task

IMAGE = next(iter(make_batches()))["image"]


def joint(views: str = "flip", **more: Any) -> Any:
    torch.manual_seed(0)
    return make_mask_task(MultiTask, views=views, **more).eval()


def test_probabilities_are_the_mean_over_both_and_masks_are_mirrored_back() -> None:
    task, plain = joint(), joint("none")
    assert task.network.state_dict().keys() == plain.network.state_dict().keys()
    with torch.no_grad():
        there, mirrored, mean = plain(IMAGE), plain(IMAGE.flip(-1)), task(IMAGE)
    classes = (there.classes.softmax(1) + mirrored.classes.softmax(1)) / 2
    torch.testing.assert_close(mean.classes.softmax(1), classes)
    torch.testing.assert_close(mean.masks.sigmoid(), (there.masks.sigmoid() + mirrored.masks.sigmoid().flip(-1)) / 2)
    assert not torch.allclose(there.classes, mirrored.classes)
    with torch.no_grad():
        again = task(IMAGE.flip(-1))
    torch.testing.assert_close(again.masks.flip(-1), mean.masks)
    for each in (task, plain):
        torch.manual_seed(0)
        each.train()
    assert torch.equal(task(IMAGE).masks, plain(IMAGE).masks)  # training sees one view


def test_class_maps_are_averaged_before_they_become_masks() -> None:
    model = {"name": "pooled_classifier", "backbone": "test_resnet", "weights": "none"}
    task: Any = LocalizationTask(model, 64, OPTIM, SCHEDULER, views="flip").eval()
    with torch.no_grad():
        there, mirrored = (task.network(task.scale(image)).class_maps for image in (IMAGE, IMAGE.flip(-1)))
        answer = task(IMAGE)
    torch.testing.assert_close(answer.class_maps, (there + mirrored.flip(-1)) / 2)
    assert answer.masks is not None and answer.masks.shape == (4, 1, 64, 64)


def test_an_ensemble_of_runs_with_views_has_them() -> None:
    tasks = [joint(), joint()]
    with torch.no_grad():
        next(iter(tasks[1].network.parameters())).mul_(2)
        members: Any = [Member(Path("a"), task, None) for task in tasks]  # type: ignore[arg-type]
        joined = join_tasks(members, None)
        expected = sum(task(IMAGE).masks.sigmoid() for task in tasks) / 2
        assert joined.views == "flip"
        torch.testing.assert_close(joined(IMAGE).masks.sigmoid(), expected)


def test_members_must_agree(trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = iter(reading.load_task(trained["classifier"]) for _ in range(2))
    first = next(loaded)
    first[0].views = "flip"
    answers = iter([first, next(loaded)])
    monkeypatch.setattr(reading, "load_task", lambda directory: next(answers))
    with pytest.raises(UserError, match=r"task\.views of an ensemble must be one, found none here and flip in"):
        read_members([Path("a"), Path("b")])


def test_explanations_are_of_the_scan_itself_and_other_views_are_none() -> None:
    task = make_task(views="flip").eval()
    assert last_features(task) in set(task.network.modules())
    with pytest.raises(UserError, match=r"^task\.views=scale: expected none or flip$"):
        make_task(views="scale")
