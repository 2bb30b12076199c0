"""Exported runs on a model hub: ``hf://USER/NAME`` instead of a directory, by huggingface_hub.

Nothing that is fetched is executed: an exported network is a graph of tensors, and its files must have the digests that
``export.json`` says. An address may end with ``#DIGEST``, the SHA-256 of ``export.json``, which then must fit as well.
What is published names no folder, file or image of the machine that it comes from.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from busi_lab.errors import UserError, one_line
from busi_lab.exported.record import EXPORT, MODELS, file_digests
from busi_lab.files import write_atomically, write_json
from busi_lab.summary import Summary, read_summary

PREFIX = "hf://"
CARD = "README.md"

_NAMES = (EXPORT, CARD, "example.py", *MODELS.values(), "model.bin")
"""What is published and fetched; any other file of a repository stays there."""

T = TypeVar("T")


class Address(NamedTuple):
    """A repository of a hub, and the digest that its ``export.json`` must have, where one was given."""

    repository: str
    digest: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}{f'#{self.digest}' if self.digest else ''}"


def parse_address(text: str) -> Address:
    """What ``hf://USER/NAME`` or ``hf://USER/NAME#DIGEST`` means.

    Raises:
        UserError: it is another text.
    """
    repository, _, digest = text.removeprefix(PREFIX).partition("#")
    user, _, name = repository.partition("/")
    if not text.startswith(PREFIX) or not user or not name or "/" in name:
        raise UserError(f"{text}: expected {PREFIX}USER/NAME, perhaps with #DIGEST")
    return Address(repository, digest or None)


def fetch(text: str) -> Path:
    """Fetch an exported run, or take it from the hub's cache on this machine; returns its directory.

    Raises:
        UserError: the hub is out of reach and the cache has nothing, there is no such repository, or what it holds is
            no exported run, or not the one that the digest is of.
    """
    address = parse_address(text)
    import huggingface_hub

    from busi_lab.models.pretrained import hub_access

    with hub_access():
        directory = Path(
            _asking(address, lambda: huggingface_hub.snapshot_download(address.repository, allow_patterns=list(_NAMES)))
        )
    if not (directory / EXPORT).is_file():
        raise UserError(f"{address}: holds no {EXPORT}; expected a run that busi-export --push has published")
    found = file_digests(directory, [EXPORT])[EXPORT]
    if address.digest is not None and not found.startswith(address.digest):
        raise UserError(f"{address}: its {EXPORT} has SHA-256 {found[:16]}; it has changed since: ask who published it")
    return directory


def push(directory: Path, text: str, card: str) -> Address:
    """Publish an exported run with its card, in one commit; returns its address with the digest.

    Raises:
        UserError: no exported run, or the hub refuses it or is out of reach.
    """
    address = parse_address(text)
    summary = read_summary(directory)
    if summary.export is None:
        raise UserError(f"{directory} is no exported run; only those are published")
    import huggingface_hub

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in directory.iterdir():
            if path.name in _NAMES and path.name not in (EXPORT, CARD):
                shutil.copyfile(path, folder / path.name)
        files = file_digests(folder, sorted(path.name for path in folder.iterdir()))
        write_json(folder / EXPORT, asdict(_public(summary, files)))
        write_atomically(folder / CARD, card)
        api = huggingface_hub.HfApi()
        _asking(address, lambda: api.create_repo(address.repository, exist_ok=True))
        message = f"Publish {summary.experiment}"
        _asking(
            address,
            lambda: api.upload_folder(repo_id=address.repository, folder_path=folder, commit_message=message),
        )
        return address._replace(digest=hashlib.sha256((folder / EXPORT).read_bytes()).hexdigest()[:16])


def _asking(address: Address, ask: Callable[[], T]) -> T:
    """What a hub answers.

    Raises:
        UserError: it refuses, or does not answer.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return ask()
    except RepositoryNotFoundError:
        raise UserError(f"{address}: no such repository, or you may not see it; log in with: hf auth login") from None
    except LocalEntryNotFoundError:
        raise UserError(f"{address}: the hub is out of reach, and nothing of it is in the cache here") from None
    except HfHubHTTPError as error:
        raise UserError(f"{address}: the hub refuses ({one_line(error)[:160]}); log in with: hf auth login") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: the hub cannot be asked ({one_line(error)[:160]})") from None


def _public(summary: Summary, files: dict[str, str]) -> Summary:
    """The summary without what names folders, files or images of this machine."""
    export = summary.export
    assert export is not None
    quantization = {key: value for key, value in export.quantization.items() if key != "changed"}
    data = replace(summary.data, root=None, labels=None, label_map={})
    members = tuple(replace(member, directory=Path(member.directory or "").name) for member in summary.members)
    return replace(
        summary,
        export=replace(export, run=None, files=files, quantization=quantization),
        data=data,
        members=members,
        command=None,
        weights=summary.weights and Path(str(summary.weights)).name,
        initial=None,
        wandb=None,
        split=replace(summary.split, imbalance=()),
    )
