"""Exported runs are published to a hub and used from there, against a local stand-in."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from busi_lab.errors import UserError
from busi_lab.exported.record import EXPORT, MODELS, ExportRecord, file_digests
from busi_lab.hub import fetch, parse_address, push
from busi_lab.summary import DataRecord, MemberRecord, Summary, read_summary, write_summary
from tests.hub_server import TOKEN, Hub, serve

ADDRESS = "hf://me/small-net"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found
    assert found.unknown == []


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An exported run with what may not be published: folders, the names of images, a command."""
    directory = tmp_path / "exported"
    directory.mkdir()
    (directory / MODELS["onnx"]).write_bytes(b"a graph")
    (directory / "predictions.csv").write_text("image,label\nMr_Smith_1,malignant\n")
    (directory / "split.json").write_text('{"train": ["Mr_Smith_2"]}')
    files = file_digests(directory, sorted(path.name for path in directory.iterdir()))
    record = ExportRecord(1, "onnx", run="/hospital/runs/1", files=files, quantization={"changed": ["Mr_Smith_3: a"]})
    summary = Summary(
        "finished",
        task="classification",
        experiment="small",
        command="busi-train data.root=/hospital/scans",
        data=DataRecord(name="ours", root="/hospital/scans", train=5),
        members=(MemberRecord("/hospital/runs/1"), MemberRecord("/hospital/runs/2")),
        export=record,
    )
    write_summary(tmp_path / "written", summary)
    (tmp_path / "written/summary.json").rename(directory / EXPORT)
    return directory


def test_what_is_published_is_fetched_again(hub: Hub, exported: Path) -> None:
    address = push(exported, ADDRESS, "# A card\n")
    assert sorted(hub.repositories["me/small-net"]) == ["README.md", EXPORT, "model.onnx"]
    assert str(address).startswith(f"{ADDRESS}#")
    directory = fetch(str(address))
    assert (directory / "model.onnx").read_bytes() == b"a graph"
    assert (directory / "README.md").read_text() == "# A card\n"
    summary = read_summary(directory)
    assert summary.export is not None
    assert summary.data.train == 5
    assert summary.export.files == file_digests(directory, ["model.onnx"])


def test_nothing_of_the_machine_is_published(hub: Hub, exported: Path) -> None:
    push(exported, ADDRESS, "# A card\n")
    everything = b"".join(hub.repositories["me/small-net"].values())
    assert b"hospital" not in everything
    assert b"Smith" not in everything


def test_what_has_changed_since_is_refused(hub: Hub, exported: Path) -> None:
    address = push(exported, ADDRESS, "# A card\n")
    changed = json.loads(hub.repositories["me/small-net"][EXPORT])
    hub.repositories["me/small-net"][EXPORT] = json.dumps({**changed, "experiment": "another"}).encode()
    with pytest.raises(UserError, match=r"has changed since: ask who published it"):
        fetch(str(address))


def test_files_that_are_no_part_of_a_run_stay_there(hub: Hub, exported: Path) -> None:
    push(exported, ADDRESS, "# A card\n")
    hub.repositories["me/small-net"]["setup.py"] = b"import os"
    assert not (fetch(ADDRESS) / "setup.py").exists()


def test_wrong_addresses_and_answers_are_one_line(
    hub: Hub, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("hf://me", "hf://me/a/b", "me/net", "hf:///net"):
        with pytest.raises(UserError, match=r"expected hf://USER/NAME, perhaps with #DIGEST"):
            parse_address(text)
    with pytest.raises(UserError, match=r"hf://me/none: no such repository, or you may not see it"):
        fetch("hf://me/none")
    hub.repositories["me/empty"] = {"README.md": b"nothing"}
    with pytest.raises(UserError, match=r"hf://me/empty: holds no export.json; expected a run that busi-export --push"):
        fetch("hf://me/empty")
    write_summary(tmp_path / "run", Summary("finished"))
    with pytest.raises(UserError, match=r"is no exported run; only those are published"):
        push(tmp_path / "run", ADDRESS, "")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(UserError, match=r"hf://me/small-net: the hub refuses .*log in with: hf auth login"):
        push(exported, ADDRESS, "")


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match=r"hf://me/net: the hub is out of reach, and nothing of it is in the cache"):
        fetch("hf://me/net")
