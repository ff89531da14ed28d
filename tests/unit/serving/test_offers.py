"""The file of the last good version."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.serving.offers import LastGood
from tests.unit.serving.tiny import Waves, offer


def test_the_last_version_kept_is_recalled(tmp_path: Path) -> None:
    kept = LastGood(tmp_path / "cache")
    for version in ("1", "2"):
        kept.keep(offer(Waves(), version, version.encode()))
    assert LastGood(tmp_path / "cache").recall("waves") == offer(Waves(), "2", b"2")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["waves.model"]


def test_nothing_is_recalled_where_nothing_was_kept(tmp_path: Path) -> None:
    assert LastGood(tmp_path).recall("waves") is None


@pytest.mark.parametrize("harm", [lambda data: data[:-1], lambda data: data[:-1] + b"?"])
def test_a_damaged_file_is_not_recalled(tmp_path: Path, harm: object) -> None:
    kept = LastGood(tmp_path)
    kept.keep(offer(Waves(), "1", b"bytes"))
    file = tmp_path / "waves.model"
    file.write_bytes(harm(file.read_bytes()))  # type: ignore[operator]
    assert kept.recall("waves") is None
