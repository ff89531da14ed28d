"""The family insurance: what it accepts, how it encodes, how it splits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from raysys.families.insurance import Insurance, Person
from raysys.families.tabular import FOLDS, columns

FAMILY = Insurance()
NAMES = {column.name: column.names for column in columns(Person) if column.names}
CODES = {column.name: column.codes for column in columns(Person)}
PERSON: dict[str, Any] = dict(FAMILY.example)


def people(count: int, seed: int = 0) -> pd.DataFrame:
    """Return made-up rows whose charges follow age and smoking."""
    draw = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "age": draw.integers(18, 65, count),
            "sex": draw.choice(NAMES["sex"], count),
            "bmi": draw.uniform(16, 50, count).round(2),
            "children": draw.integers(0, 5, count),
            "smoker": draw.choice(NAMES["smoker"], count, p=[0.8, 0.2]),
            "region": draw.choice(NAMES["region"], count),
        }
    )
    rows["charges"] = 250.0 * rows.age + 24000 * (rows.smoker == "yes") + draw.normal(0, 500, count)
    return rows


def decode(body: dict[str, Any]) -> Person:
    return msgspec.json.decode(json.dumps(body), type=Person)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("age", -1),
        ("age", 121),
        ("age", 19.5),
        ("age", True),
        ("age", None),
        ("sex", "Female"),
        ("sex", 2),
        ("bmi", 4.9),
        ("bmi", 101),
        ("bmi", "27.9"),
        ("children", 21),
        ("smoker", True),
        ("region", 4),
        ("unknown", 1),
    ],
)
def test_bad_field_is_refused(field: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        decode({**PERSON, field: value})


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_number_that_is_not_finite_is_refused(number: str) -> None:
    body = json.dumps(PERSON).replace("27.9", number)
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(body, type=Person)


def test_missing_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="region"):
        decode({key: value for key, value in PERSON.items() if key != "region"})


def test_codes_and_names_are_the_same_person() -> None:
    coded = {**PERSON, **{field: CODES[field][PERSON[field]] for field in NAMES}}
    assert FAMILY.encode([decode(coded)]).tolist() == FAMILY.encode([decode(PERSON)]).tolist()


def test_codes_are_alphabetical() -> None:
    for field, names in NAMES.items():
        assert list(names) == sorted(names)
        assert [CODES[field][name] for name in names] == list(range(len(names)))


def test_encoding_follows_the_columns() -> None:
    encoded = FAMILY.encode([decode(PERSON)])
    assert encoded.dtype == np.float32
    named = dict(zip(FAMILY.columns(), encoded[0].tolist(), strict=True))
    expected = {"age": 19, "sex": 0, "bmi": 27.9, "children": 0, "smoker": 1, "region": 3}
    assert named == pytest.approx(expected)


def test_answers_are_one_number_a_row() -> None:
    assert FAMILY.decode(np.array([[1.00004], [2.5]], np.float32)) == [1.0, 2.5]


def test_table_does_not_depend_on_the_order_or_the_spelling_of_rows() -> None:
    rows = people(50)
    shuffled = rows.sample(frac=1, random_state=1)
    shuffled["sex"] = [CODES["sex"][name] for name in shuffled["sex"]]
    table, gaps = FAMILY.prepare(rows)
    assert gaps == []
    pd.testing.assert_frame_equal(table, FAMILY.prepare(shuffled)[0])


def test_split_is_repeatable_and_loses_no_row() -> None:
    table, _ = FAMILY.prepare(people(203))
    parts, again = FAMILY.split(table, seed=7), FAMILY.split(table, seed=7)
    assert len(parts.train[0]) + len(parts.test[0]) == 203
    assert abs(len(parts.test[0]) - 203 / FOLDS) <= 1
    assert np.array_equal(parts.test[0], again.test[0])
    assert not np.array_equal(parts.test[0], FAMILY.split(table, seed=8).test[0])


def test_rows_are_encoded_for_training_as_for_serving() -> None:
    table, _ = FAMILY.prepare(people(60))
    parts = FAMILY.split(table, seed=7)
    fields = list(FAMILY.columns())
    served = FAMILY.encode(
        [decode(row) for row in json.loads(table[fields].to_json(orient="records"))]
    )
    trained = np.concatenate([parts.train[0], parts.test[0]])
    assert sorted(map(tuple, served.tolist())) == sorted(map(tuple, trained.tolist()))


def test_folds_hold_equal_shares_of_smokers_and_charges() -> None:
    table, _ = FAMILY.prepare(people(1000))
    parts = FAMILY.split(table, seed=3)
    x, y = parts.train
    folds = FAMILY.folds(x, y, seed=3)
    smokers = [x[folds == number, 4].sum() for number in range(FOLDS)]
    means = [y[folds == number].mean() for number in range(FOLDS)]
    assert max(smokers) - min(smokers) <= 1
    assert max(means) / min(means) < 1.05


def test_real_rows_split_so_that_luck_decides_little(shared_data: Path) -> None:
    table, _ = FAMILY.prepare(pd.read_csv(shared_data / "insurance.csv"))
    means = [FAMILY.split(table, seed).test[1].mean() for seed in range(10)]
    assert len(table) == 1338
    assert max(means) / min(means) < 1.05
