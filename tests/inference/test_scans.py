from pathlib import Path

from tests.inference.small_runs import Cli, scan


def test_equal_names_are_told_apart(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for name in ("scan.png", "scan.jpg", "Scan.bmp", "a/scan.png", "b/scan.png"):
        scan(folder / name)
    called = cli(folder, folder, folder / "a/scan.png", "--run", runs / "random")
    assert called.code == 0
    assert len(called.lines) == 11
    records = sorted(path.relative_to(called.out).as_posix() for path in called.out.rglob("*.json"))
    assert len({name.lower() for name in records}) == 11
    assert {"scan_png.json", "a/scan.json", "b/scan.json"} <= set(records)
    for line in called.lines:
        assert (called.out / "a" / line["pictures"]["overlay"]).exists() or any(
            called.out.rglob(line["pictures"]["overlay"])
        )


def test_masks_and_hidden_files_of_a_folder_are_left_out(cli: Cli, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    for name in ("case (1).png", "case (1)_mask.png", "case (1)_mask_1.png", "lone_mask.png", ".hidden.png"):
        scan(folder / name)
    (folder / "notes.txt").write_text("no scan")
    called = cli(folder, "--run", runs / "random")
    assert called.code == 0
    assert [Path(line["file"]).name for line in called.lines] == ["case (1).png", "lone_mask.png"]
    assert "left out: 2 mask files" in called.errors[-1]
    given = cli(folder / "case (1)_mask.png", "--run", runs / "random")
    assert len(given.lines) == 1
