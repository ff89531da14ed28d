"""Which keys of a document a pydantic model does not know, at any depth; values are not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel


class Fault(NamedTuple):
    """What is wrong at one place of a document."""

    loc: tuple[str | int, ...]
    reason: str


def unknown(annotation: Any, value: Any, loc: tuple[str | int, ...] = ()) -> Iterator[Fault]:
    """Yield each key in `value` that no model of `annotation` has.

    A model that takes any key, as those of Ray Serve do, is judged by its fields all the same.
    """
    if isinstance(value, list):
        for item in (a for a in _alternatives(annotation) if get_origin(a) is list):
            for index, element in enumerate(value):
                yield from unknown(get_args(item)[0], element, (*loc, index))
    models = [a for a in _alternatives(annotation) if _is_model(a)]
    if not models or not isinstance(value, dict):
        return
    fields = {wire: field for model in models for wire, field in _fields(model)}
    for key, element in value.items():
        if key in fields:
            yield from unknown(fields[key], element, (*loc, key))
        else:
            yield Fault((*loc, key), f"unknown field{_nearest(key, fields)}")


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (None, list, dict):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _alternatives(argument)]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        yield field.serialization_alias or name, field.annotation


def _nearest(key: str, fields: dict[str, Any]) -> str:
    import difflib

    near = difflib.get_close_matches(key, list(fields), n=1)
    return f"; is {near[0]} meant?" if near else ""
