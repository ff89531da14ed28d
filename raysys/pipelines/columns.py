"""The columns of a family's CSV, made of its request type; reading files is not done here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import msgspec

WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
Kind = Any  # one of the types of `msgspec.inspect`


def of_request(request: Any) -> dict[str, Kind]:
    """Return the kind of each field of a request type, by name and in order."""
    kind = msgspec.inspect.type_info(request)
    if not isinstance(kind, msgspec.inspect.StructType):
        raise TypeError(f"the request of a table family must be a Struct, not {request!r}")
    return {field.encode_name: field.type for field in kind.fields}


def value_of(text: str, kind: Kind) -> Any:
    """Return what `text` means as `kind`, bounds aside; raises ValueError with the reason."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return _first_of(text, kind.types)
    if not text and not isinstance(kind, msgspec.inspect.NoneType):
        raise ValueError("is empty")
    for known, read in _READERS.items():
        if isinstance(kind, known):
            return read(text)
    return text


def _first_of(text: str, kinds: tuple[Kind, ...]) -> Any:
    reasons = []
    for kind in sorted(kinds, key=lambda k: isinstance(k, msgspec.inspect.StrType)):
        try:
            return value_of(text, kind)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(" and ".join(reasons))


def _integer(text: str) -> int:
    if not WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text.split(".")[0])


def _float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise ValueError(f"{text!r} is neither true nor false")
    return BOOLEANS[text.lower()]


def _literal(text: str) -> str | int:
    return int(text) if WHOLE.fullmatch(text) and "." not in text else text


def _none(text: str) -> None:
    if text:
        raise ValueError(f"{text!r} is not empty")


_READERS: dict[Kind, Callable[[str], Any]] = {
    msgspec.inspect.IntType: _integer,
    msgspec.inspect.FloatType: _float,
    msgspec.inspect.BoolType: _boolean,
    msgspec.inspect.LiteralType: _literal,
    msgspec.inspect.NoneType: _none,
}


def schema(kinds: dict[str, Kind]) -> Any:
    """Return a pandera schema that checks the bounds and choices of `kinds`."""
    import pandera.pandas as pa

    return pa.DataFrameSchema(
        {name: pa.Column(None, _checks(kind), nullable=True) for name, kind in kinds.items()}
    )


def _checks(kind: Kind) -> list[Any]:
    import pandera.pandas as pa

    if isinstance(kind, msgspec.inspect.LiteralType):
        told = ", ".join(str(value) for value in kind.values)
        return [pa.Check.isin(list(kind.values), error=f"is none of {told}")]
    bounds = {
        "ge": (pa.Check.ge, "is less than"),
        "gt": (pa.Check.gt, "is not more than"),
        "le": (pa.Check.le, "is more than"),
        "lt": (pa.Check.lt, "is not less than"),
    }
    return [
        check(getattr(kind, name), error=f"{told} {getattr(kind, name):g}")
        for name, (check, told) in bounds.items()
        if getattr(kind, name, None) is not None
    ]
