"""Datasets that a configuration asks for and that are made in the cache: phantoms, several as one, augmented copies."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from busi_lab.config import DataConfig, check_arguments
from busi_lab.data.cache import resolve_cache_dir
from busi_lab.data.index import index_dataset
from busi_lab.data.invalid_copies import make_copies
from busi_lab.data.label_words import plain_label_map
from busi_lab.data.masks import lesion_value_names
from busi_lab.data.mix import mix_folder, parse_sources
from busi_lab.data.options import DatasetOptions
from busi_lab.data.phantom import generate_phantoms
from busi_lab.errors import UserError, one_line

log = logging.getLogger(__name__)


def dataset_options(data: DataConfig) -> DatasetOptions:
    """How the folder of the data is to be read.

    Raises:
        UserError: ``data.label_map`` gives a word two meanings.
    """
    lesions = lesion_value_names(data.lesion_values)
    return DatasetOptions(data.labels, plain_label_map(data.label_map), lesions, data.layout)


def made_root(data: DataConfig) -> Path | None:
    """The folder that is made for these data; None where they are read as they are.

    Raises:
        UserError: it cannot be made.
    """
    if data.phantom is not None:
        return _phantom_root(_cache_of(data, "data=phantom needs", "phantoms"), data.phantom)
    if data.copies_before_split:
        return _copies_root(_cache_of(data, "data.copies_before_split needs", "copies"), data)
    return None if data.sources is None else mixed_root(data)


def mixed_root(data: DataConfig) -> Path:
    """The folder in which ``data.sources`` are one dataset, made if it is not there yet.

    Raises:
        UserError: a source is not sound, or it cannot be made.
    """
    folder = _cache_of(data, "data.sources need", "links")
    sources = parse_sources(data.sources or [])
    try:
        return mix_folder(sources, folder)
    except OSError as error:
        raise UserError(f"data.cache_dir={folder}: links cannot be made: {one_line(error)}") from None


def _cache_of(data: DataConfig, needs: str, what: str) -> Path:
    folder = resolve_cache_dir(data.cache_dir)
    if folder is None:
        raise UserError(f"{needs} data.cache_dir, the folder to make the {what} in; found null")
    return folder


def _copies_root(cache_dir: Path, data: DataConfig) -> Path:
    """The folder of a dataset with copies (:mod:`busi_lab.data.invalid_copies`), made if it is not there yet."""
    index = index_dataset(data.root, options=dataset_options(data))
    root = cache_dir / f"copies-2-{index.digest}-{data.copies_before_split}"
    if not root.is_dir():
        log.info("making augmented copies in %s: an invalid protocol", root)
        try:
            make_copies(index, root, data.copies_before_split)
        except (OSError, UserError) as error:
            if not root.is_dir():  # else another job was faster, with the same copies
                raise UserError(f"data.cache_dir={cache_dir}: copies cannot be made: {one_line(error)}") from None
    return root


def _phantom_root(cache_dir: Path, settings: dict[str, Any]) -> Path:
    """The folder of the wanted phantoms, made if it is not there yet."""
    check_arguments("data.phantom", generate_phantoms, settings)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    root = cache_dir / f"phantoms-2-{key}"  # raise the number when the generator draws or writes otherwise
    if not root.is_dir():
        log.info("making phantoms in %s", root)
        try:
            generate_phantoms(root, **settings)
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"data.phantom={settings}: {one_line(error)}; see conf/data/phantom.yaml") from None
        except (OSError, UserError) as error:
            if not root.is_dir():  # else another job was faster, with the same phantoms
                raise UserError(f"data.cache_dir={cache_dir}: phantoms cannot be made: {one_line(error)}") from None
    return root
