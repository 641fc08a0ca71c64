"""Follows keys through the schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from serve_app.config.key_path import KeyPath


class KeyField(NamedTuple):
    """A key with a plain value, as `plain_fields` finds it."""

    key: str
    """Written from the root; names that a user chooses are written ``<name>``."""
    field: FieldInfo
    within: str | None
    """The key of the optional mapping that it stands in, if there is one."""


def key_of(name: str, field: FieldInfo) -> str:
    """The key of a field in YAML."""
    return field.alias or name


def allowed_keys(schema: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys of the mapping at a path; empty where any key may stand."""
    annotation: Any = schema
    for part in path:
        annotation = _below(annotation, part)
    model = model_in(annotation)
    return [key_of(*item) for item in model.model_fields.items()] if model else []


def plain_fields(
    schema: type[BaseModel], prefix: str, within: str | None = None
) -> Iterator[KeyField]:
    """All keys with plain values below a key, depth first."""
    for name, field in schema.model_fields.items():
        key = f"{prefix}.{key_of(name, field)}"
        annotation = without_none(field.annotation)
        outer = key if annotation is not field.annotation else within
        arguments = get_args(annotation)
        if get_origin(annotation) is dict and model_in(arguments[1]):
            key, annotation = f"{key}.<{name.rstrip('s')}>", arguments[1]
        elif get_origin(annotation) is tuple and model_in(arguments[0]):
            key, annotation = f"{key}[i]", arguments[0]
        model = model_in(annotation)
        if model is None:
            yield KeyField(key, field, within)
        else:
            yield from plain_fields(model, key, outer)


def without_none(annotation: Any) -> Any:
    """X for ``X | None``."""
    options = [option for option in get_args(annotation) if option is not type(None)]
    return options[0] if type(None) in get_args(annotation) and len(options) == 1 else annotation


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The schema with keys of its own that an annotation is, or is when it is not None."""
    annotation = without_none(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if "root" in annotation.model_fields else annotation
    return None


def _below(annotation: Any, part: str | int) -> Any:
    """The annotation of what stands under one part of a path."""
    annotation = without_none(annotation)
    if model := model_in(annotation):
        fields = {key_of(*item): item[1] for item in model.model_fields.items()}
        return fields[str(part)].annotation if part in fields else None
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping):
        return arguments[1]
    return arguments[0] if get_origin(annotation) is tuple else None
