"""Keys of callers and their rates."""

from __future__ import annotations

import pytest

from deployments.http import HttpError
from deployments.keys import Keys
from raysys.errors import InvalidInput


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def status(keys: Keys, key: bytes | None) -> int:
    try:
        keys.check({} if key is None else {b"x-api-key": key})
    except HttpError as error:
        return error.status
    return 200


def test_only_known_keys_may_predict() -> None:
    keys = Keys("shop=abc, test=def")
    given: list[bytes | None] = [b"abc", b"def", b"abcd", b"", None]
    assert [status(keys, key) for key in given] == [200, 200, 403, 403, 401]


def test_without_keys_there_is_nothing_to_check() -> None:
    assert not Keys("")


def test_a_key_that_asks_too_often_waits_and_others_do_not() -> None:
    clock = Clock()
    keys = Keys("shop=abc@2,test=def", clock)
    assert [status(keys, b"abc") for _ in range(3)] == [200, 200, 429]
    assert status(keys, b"def") == 200
    clock.now = 0.5
    assert [status(keys, b"abc") for _ in range(2)] == [200, 429]
    with pytest.raises(HttpError) as refusal:
        keys.check({b"x-api-key": b"abc"})
    assert dict(refusal.value.headers)[b"retry-after"] == b"1"


@pytest.mark.parametrize("text", ["abc", "=abc", "shop=", "shop=abc@fast"])
def test_a_setting_that_is_no_list_of_keys_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="NAME=KEY"):
        Keys(text)
