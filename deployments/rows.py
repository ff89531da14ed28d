"""From a request's values to the rows of a family, and every fault of those that are none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from deployments.http import HttpError
from raysys.errors import InvalidInput
from raysys.families.base import Family

MOST_FAULTS = 100  # a caller mends what it is shown and asks again
MOST_ITEMS = 10_000  # values of one list that are looked at one by one
LONGEST_NAME = 100

# A lone surrogate, which JSON can escape, makes msgspec raise an error of Python's.
UNFIT = (msgspec.ValidationError, OverflowError, UnicodeEncodeError)

Loc = tuple[str | int, ...]
Fault = tuple[Loc, str]


class NotFinite:
    """Stands for NaN, an infinity or a number too large for a float in a body that is not JSON."""

    def __init__(self, text: str) -> None:
        self.text = text[:LONGEST_NAME]


class Reader:
    """Reads bodies of one kind of row, or of a list of them where `many` says so."""

    def __init__(self, kind: Any, many: bool) -> None:
        self._kind = kind
        self._lists = many
        self._depth = _depth(kind)
        self._one = msgspec.json.Decoder(kind)
        self._many = msgspec.json.Decoder(list[kind])

    def read(self, body: bytes) -> tuple[list[Any], bool]:
        """Return the rows of a JSON body, and whether the caller sent a list of them.

        Raises HttpError 400 when it is not JSON, and InvalidInput with every fault otherwise.
        """
        many = self._lists and _leading_brackets(body) > self._depth
        try:
            rows = self._many.decode(body) if many else [self._one.decode(body)]
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise self._refusal(parse(body), many, error) from error
        if not rows:
            raise invalid([((), "must hold one row at least")])
        return rows, many

    def convert(self, values: list[Any], where: Sequence[str | int] = ()) -> list[Any]:
        """Return rows from plain values; raises InvalidInput with every fault below `where`."""
        try:
            rows: list[Any] = msgspec.convert(values, list[self._kind])  # type: ignore[name-defined]
        except UNFIT as error:
            raise self._refusal(values, True, error, tuple(where)) from error
        return rows

    def _refusal(self, value: Any, many: bool, error: Exception, where: Loc = ()) -> InvalidInput:
        kind = list[self._kind] if many else self._kind  # type: ignore[name-defined]
        found = list(islice(faults(value, kind, where), MOST_FAULTS))
        return invalid(found or [(where, _reason(error))])


class RowReader(Reader):
    """Reads bodies for one family: one row, or a list of rows where the family allows it."""

    def __init__(self, family: Family) -> None:
        super().__init__(family.request, family.many)


def parse(body: bytes) -> Any:
    """Return the values of a body, with NotFinite for what JSON cannot say; raises HttpError 400."""
    try:
        return json.loads(
            body.decode("utf-8"), parse_constant=NotFinite, parse_float=_finite, parse_int=_integer
        )
    except RecursionError as error:
        raise HttpError(
            400, "The body is not JSON that can be read: it is nested too deep."
        ) from error
    except ValueError as error:
        raise HttpError(400, f"The body is not JSON: {error}.") from error


def invalid(found: list[Fault]) -> InvalidInput:
    """Return the error that names the faults, with a sentence for people."""
    issues = [{"loc": [_short(part) for part in loc], "reason": reason} for loc, reason in found]
    loc, reason = found[0]
    where = ".".join(map(str, (_short(part) for part in loc))) or "body"
    more = f" (and {len(found) - 1} more faults)" if len(found) > 1 else ""
    return InvalidInput(f"{where}: {reason}{more}.", issues=issues)


def faults(value: Any, kind: Any, loc: Loc = ()) -> Iterator[Fault]:
    """Yield every fault of `value` as a `kind`: a Struct, a list, an Annotated or a plain type."""
    if isinstance(value, NotFinite):
        yield loc, f"must be a finite number, not {value.text}"
        return
    try:
        msgspec.convert(value, kind)
    except UNFIT as error:
        yield from _faults_inside(value, kind, loc, error)


def _faults_inside(value: Any, kind: Any, loc: Loc, error: Exception) -> Iterator[Fault]:
    base, meta = unwrapped(kind)
    if isinstance(base, type) and issubclass(base, msgspec.Struct):
        yield from _faults_of_fields(value, base, loc)
    elif get_origin(base) is list:
        yield from _faults_of_items(value, get_args(base)[0], meta, loc)
    elif get_origin(base) is Literal:
        yield loc, f"must be one of {', '.join(map(repr, get_args(base)))}"
    else:
        yield loc, _reason(error)


def _faults_of_fields(value: Any, struct: type[msgspec.Struct], loc: Loc) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    if not isinstance(value, dict):
        yield loc, f"must be an object with {', '.join(fields)}"
        return
    kinds = get_type_hints(struct, include_extras=True)
    for name, field in fields.items():
        if name in value:
            yield from faults(value[name], kinds[field.name], (*loc, name))
        elif field.required:
            yield (*loc, name), "is missing"
    if struct.__struct_config__.forbid_unknown_fields:
        for name in value.keys() - fields.keys():
            yield (*loc, name), f"is not a field; the fields are {', '.join(fields)}"


def _faults_of_items(value: Any, item: Any, meta: msgspec.Meta | None, loc: Loc) -> Iterator[Fault]:
    if not isinstance(value, list):
        yield loc, "must be a list"
        return
    least, most = (meta.min_length, meta.max_length) if meta else (None, None)
    if (least is not None and len(value) < least) or (most is not None and len(value) > most):
        wanted = f"{least}" if least == most else f"{least or 0} to {most or 'any number of'}"
        yield loc, f"must hold {wanted} values, and holds {len(value)}"
    for index, each in enumerate(value[: most or MOST_ITEMS]):
        yield from faults(each, item, (*loc, index))


def unwrapped(kind: Any) -> tuple[Any, msgspec.Meta | None]:
    if get_origin(kind) is not Annotated:
        return kind, None
    base, *extras = get_args(kind)
    return base, next((e for e in extras if isinstance(e, msgspec.Meta)), None)


def _depth(kind: Any) -> int:
    base, _ = unwrapped(kind)
    return 1 + _depth(get_args(base)[0]) if get_origin(base) is list else 0


def _leading_brackets(body: bytes) -> int:
    count = 0
    for byte in body:
        if byte == 0x5B:
            count += 1
        elif byte not in b" \t\r\n":
            break
    return count


def _reason(error: Exception) -> str:
    text = str(error).split(" - at `$", 1)[0]
    return text[:1].lower() + text[1:300] if text else "is not valid"


def _short(part: str | int) -> str | int:
    return part if isinstance(part, int) else part[:LONGEST_NAME]


def _finite(text: str) -> float | NotFinite:
    number = float(text)
    return number if abs(number) != float("inf") else NotFinite(text)


def _integer(text: str) -> int | NotFinite:
    # Python refuses to read integers of more than 4,300 digits, and no float holds one of 310.
    return int(text) if len(text) < 310 else NotFinite(f"{text[:20]}…")
