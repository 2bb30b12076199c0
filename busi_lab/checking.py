"""Values of a configuration against a schema: a dataclass, perhaps with dataclasses in it."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from busi_lab.errors import UserError, one_line
from busi_lab.suggestions import one_of

T = TypeVar("T")


def checked(kind: type[T], values: Mapping[str, Any], group: str = "", known_as: str = "known keys") -> T:
    """Values as an object of a schema.

    Args:
        kind: the schema.
        values: to check; 8.0 becomes 8 where a whole number belongs.
        group: where they stand in the configuration, for errors.
        known_as: what errors call the known keys.

    Raises:
        UserError: an unknown key, or a value of another type.
    """
    content = OmegaConf.create(dict(values))
    write_whole(content, whole_keys(kind))
    try:
        parsed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), content))
    except OmegaConfBaseException as error:
        inner = getattr(error, "full_key", None)
        key = f"{group}.{inner}" if group and inner else inner
        reason = one_line(error).split(" full_key:")[0]
        if inner and "not in" in reason:
            owner, _, name = str(inner).rpartition(".")
            known = _known_keys(kind, owner)
            raise UserError(one_of(f"{key}: unknown key", name, known, known_as)) from None
        raise UserError(f"configuration: {key or '?'}: {reason}") from None
    assert isinstance(parsed, kind)
    return parsed


def groups_of(kind: Any) -> dict[str, Any]:
    """The fields of a schema that have a schema of their own, by name."""
    return {item.name: item.type for item in fields(kind) if is_dataclass(item.type)}


def _known_keys(kind: Any, group: str) -> list[str]:
    owner = groups_of(kind).get(group) if group else kind
    return [item.name for item in fields(owner)] if owner else []


_INTEGERS = (int, int | None, "int", "int | None")


def whole_keys(kind: Any) -> list[str]:
    """The keys of a schema and of its groups at which a whole number belongs."""
    schemas = {"": kind, **groups_of(kind)}
    return [
        f"{group}.{item.name}" if group else item.name
        for group, schema in schemas.items()
        for item in fields(schema)
        if item.type in _INTEGERS
    ]


def write_whole(config: DictConfig, keys: Iterable[str]) -> None:
    """Write 8.0 as 8 where a whole number belongs: agents of sweeps write integers so."""
    for key in keys:
        try:
            value = OmegaConf.select(config, key)
        except OmegaConfBaseException:  # something else stands where the group belongs, which is said later
            continue
        if isinstance(value, float) and value.is_integer():
            OmegaConf.update(config, key, int(value))


def check_positive(values: Mapping[str, float]) -> None:
    """Refuse values of keys that are not above 0.

    Raises:
        UserError: naming the first.
    """
    for key, value in values.items():
        if value <= 0:
            raise UserError(f"{key}={value}: expected more than 0")


def check_nonnegative(values: Mapping[str, float]) -> None:
    """Refuse values of keys that are below 0.

    Raises:
        UserError: naming the first.
    """
    for key, value in values.items():
        if value < 0:
            raise UserError(f"{key}={value}: expected 0 or more")


def check_least(group: str, settings: Any, least: Mapping[str, int]) -> None:
    """Refuse settings that are below their least value; None is none.

    Args:
        group: where they stand in the configuration.
        settings: a dataclass.
        least: by the names of fields.

    Raises:
        UserError: naming the first.
    """
    for name, lowest in least.items():
        value = getattr(settings, name)
        if value is not None and value < lowest:
            raise UserError(f"{group}.{name}={value}: expected at least {lowest}")


def check_fractions(values: Mapping[str, float]) -> None:
    """Refuse values of keys that are no shares between 0 and 1.

    Raises:
        UserError: naming the first.
    """
    for key, value in values.items():
        if not 0 < value < 1:
            raise UserError(f"{key}={value}: expected a share between 0 and 1")
