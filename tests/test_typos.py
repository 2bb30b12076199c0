"""Mistyped keys and options as a user meets them: one line with the nearest name."""

from pathlib import Path

import pytest

from busi_lab.suggestions import nearest
from busi_lab.train import main

OF_EVERY_NETWORK = "weights, weights_data, in_chans, dropout, freeze, unfreeze_epoch, standardize"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean max_epochs?"),
        (
            "trainer.gradient_clip_val=1",
            "trainer.gradient_clip_val: not set here; add this argument of Lightning's Trainer as "
            "+trainer.gradient_clip_val=VALUE",
        ),
        ("optim.learning_rate=1", "optim.learning_rate: unknown key; known keys: name, lr, weight_decay, backbone_lr"),
        ("+optim.wieght_decay=1", "optim.wieght_decay: unknown key; did you mean weight_decay? known keys: name, lr,"),
        ("modle.backbone=x", "modle.backbone: unknown key; did you mean model.backbone?"),
        ("experimnt=paper/unet", "experimnt: unknown key; did you mean experiment?"),
        ("seeed=1", "seeed: unknown key; did you mean seed?"),
        ("seed=0,1", "seed=0,1: several values; add -m for a run with each, or write one list as 'seed=[0,1]'"),
        ("qqq=1", "qqq: unknown key; --help lists groups and keys"),
        ("model.backbon=x", "model.backbon: unknown key; did you mean backbone? known keys of timm: name, backbone,"),
        ("data.phantom.seed=1", "data.phantom.seed: unknown key; phantoms belong to data=phantom"),
        ("search.trials=3", "search.trials: no search is chosen; add search=default"),
        ("--optim.lr", "--optim.lr: no such option; for a key of the configuration give a value, as in optim.lr=VALUE"),
        ("--mutlirun", "--mutlirun: no such option; "),
        ("split=fold/7", "split=fold/7: no such option; set split=grouped_kfold split.fold=7"),
        ("--cfg=jub", "argument --cfg/-c: invalid choice: 'jub' (choose from "),
        ("task.localize=cam", "task.localize: unknown key; task=localization has it; known keys: "),
        ("task.monitr=x", "task.monitr: unknown key; did you mean monitor? known keys: "),
        ("+logger.wandb.projct=x", "logger.wandb.projct: unknown key; did you mean project? known keys: "),
        (
            "experiment=paper/mobilnet",
            "experiment=paper/mobilnet: no such option; did you mean paper/mobilenet? choices: ",
        ),
        (
            "data=busy",
            "data=busy: no such option; did you mean busi? choices: busi, folder, invalid_copies, labels, mix, phantom",
        ),
    ],
)
def test_a_typo_is_one_line_with_the_nearest_name(
    override: str, line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([override])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line}") and printed.count("\n") == 1
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean max_epochs?"),
        ("split=nonsense", "split=nonsense: no such option; "),
    ],
)
@pytest.mark.parametrize("chosen", ["sweep=best_ensemble", "search=learning_rate"])
def test_a_typo_beside_several_values_is_named(
    chosen: str, override: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([chosen, "seed=0,1", override])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {line}")


@pytest.mark.parametrize(
    ("overrides", "known"),
    [
        (["model=custom_cnn"], f"custom_cnn: name, {OF_EVERY_NETWORK}"),
        (
            ["experiment=paper/unet_smp"],
            f"smp: name, arch, encoder, decoder_channels, drop_path, deep_supervision, {OF_EVERY_NETWORK}",
        ),
    ],
)
def test_the_known_keys_of_a_network_are_its_own(
    overrides: list[str], known: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*overrides, "model.kind=resnet18"])
    assert capsys.readouterr().err == f"error: model.kind: unknown key; known keys of {known}\n"


def test_a_key_that_a_space_lacks_is_added(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search=default", "search.space.data.batch_size={choices: [8, 16]}"])
    expected = (
        "search.space.data.batch_size: the space lacks this key; add it as +search.space.data.batch_size={choices"
    )
    assert expected in capsys.readouterr().err


def test_options_of_a_folder_of_ones_own_are_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "hospital.yaml").write_text("# @package _global_\nname: hospital\n")
    with pytest.raises(SystemExit):
        main(["--config-dir", str(tmp_path), "experiment=hospitl"])
    printed = capsys.readouterr().err
    assert "did you mean hospital? choices: " in printed
    assert "demo/joint, demo/resnet, demo/unet, hospital, joint/mobilenet" in printed


def test_a_damaged_file_in_a_folder_of_ones_own_does_not_hide_a_typo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in {"a": b"x: [", "b": b"\xff\xfe"}.items():
        (tmp_path / f"model/{name}.yaml").parent.mkdir(exist_ok=True)
        (tmp_path / f"model/{name}.yaml").write_bytes(content)
    with pytest.raises(SystemExit):
        main(["--config-dir", str(tmp_path), "optim.lrr=1"])
    assert "optim.lrr: unknown key; did you mean lr?" in capsys.readouterr().err


def test_nothing_is_meant_by_what_resembles_nothing() -> None:
    assert nearest("learning_rate", ["lr", "name"]) == ""
