"""Errors cross processes whole."""

from __future__ import annotations

import pickle

import pytest

from raysys import errors
from raysys.errors import InvalidInput, RaysysError


def descendants(cls: type[RaysysError]) -> list[type[RaysysError]]:
    return [cls, *(found for child in cls.__subclasses__() for found in descendants(child))]


@pytest.mark.parametrize("cls", descendants(RaysysError), ids=lambda cls: cls.__name__)
def test_error_survives_pickling(cls: type[RaysysError]) -> None:
    error = cls("Crawl 7 failed.", id=7, window={"start": "2026-01-01"})
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert (str(copy), copy.message, copy.fields) == (str(error), error.message, error.fields)
    assert 400 <= copy.status < 600


def test_every_error_of_the_module_is_one_of_ours() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert set(classes) <= set(descendants(RaysysError))


def test_issues_are_those_given() -> None:
    issues = [{"loc": ["age"], "reason": "is empty"}]
    assert InvalidInput("m", issues=issues).issues == issues
    assert InvalidInput("m").issues == []
