"""The artifact store: whole or not at all, in a folder and behind a URL."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from raysys.artifacts import Artifacts
from raysys.errors import NotFound, Unavailable


@pytest.fixture(params=["folder", "url"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    return Artifacts(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")


def test_bytes_come_back_from_their_address(artifacts: Artifacts) -> None:
    uri = artifacts.put("models/one/model.onnx", b"first")
    assert artifacts.get(uri) == b"first"
    assert uri == artifacts.uri("models/one/model.onnx")
    assert artifacts.exists(uri)


def test_put_replaces_what_was_there(artifacts: Artifacts) -> None:
    artifacts.put("a", b"a long first content")
    assert artifacts.get(artifacts.put("a", b"new")) == b"new"


def test_missing_artifact_is_not_found(artifacts: Artifacts) -> None:
    missing = artifacts.uri("nothing/here")
    assert not artifacts.exists(missing)
    with pytest.raises(NotFound, match="nothing/here"):
        artifacts.get(missing)


def test_store_survives_pickling(artifacts: Artifacts) -> None:
    uri = artifacts.put("a", b"a")
    assert pickle.loads(pickle.dumps(artifacts)).get(uri) == b"a"


def test_folder_gives_plain_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = Artifacts("relative/").put("a/b", b"")
    assert uri == str(tmp_path / "relative" / "a" / "b")


def test_failed_put_leaves_the_old_content_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = Artifacts(str(tmp_path))
    uri = artifacts.put("a", b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unavailable, match="No space left"):
        artifacts.put("a", b"new")
    assert artifacts.get(uri) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
