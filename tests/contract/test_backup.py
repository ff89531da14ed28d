"""What a backup holds is there again after a restore, on both databases; a wrong or damaged file changes nothing."""

from __future__ import annotations

import datetime as dt
import io
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from raysys import db, durable
from raysys.errors import Conflict, InvalidInput, NotFound, Unavailable
from raysys.laptop import backup, processes
from raysys.laptop.backup import Manifest
from raysys.settings import Settings
from raysys.store import examples
from raysys.store.tables import metadata


@pytest.fixture
def kept(settings: Settings, now: dt.datetime) -> Settings:
    """A home that holds rows, a run, a registry and an artifact."""
    db.migrate(settings)
    durable.migrate(settings)
    add_rows(settings, now, 3)
    with closing(sqlite3.connect(settings.home / "mlflow.db")) as registry, registry:
        registry.execute("CREATE TABLE versions (name TEXT)")
        registry.execute("INSERT INTO versions VALUES ('insurance/1')")
    file = Path(settings.artifact_root) / "snapshots" / "a.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"rows")
    return settings


def add_rows(settings: Settings, now: dt.datetime, count: int) -> None:
    engine = db.open_engine(settings.database)
    rows = [{"age": number} for number in range(count)]
    given: dict[str, Any] = {"source": "test", "workflow_id": None, "now": now, "rejections": []}
    examples.add(engine, family="insurance", rows=rows, **given)
    engine.dispose()


def state(settings: Settings) -> dict[str, Any]:
    """Return all that is kept: the rows of every table, the registry, the artifacts."""
    engine = db.open_engine(settings.database)
    with db.reading(engine) as connection:
        tables = {t.name: connection.execute(sa.select(t)).all() for t in metadata.sorted_tables}
    engine.dispose()
    with closing(sqlite3.connect(settings.home / "mlflow.db")) as registry:
        versions = registry.execute("SELECT * FROM versions").fetchall()
    root = Path(settings.artifact_root)
    files = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    return {"tables": tables, "versions": versions, "files": files}


def wipe(settings: Settings) -> None:
    import shutil

    shutil.rmtree(settings.home)
    if settings.database.startswith("sqlite"):
        for name in Path(str(sa.make_url(settings.database).database)).parent.glob("raysys*.db*"):
            name.unlink()
        return
    engine = sa.create_engine(settings.database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for schema in ("public", "dbos"):
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()


@pytest.fixture
def file(kept: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "backups" / "raysys.tar.gz"
    backup.backup(kept, path)
    return path


def test_a_wiped_home_is_what_it_was(kept: Settings, file: Path) -> None:
    before = state(kept)
    wipe(kept)
    backup.restore(kept, file)
    assert state(kept) == before
    db.migrate(kept)
    durable.migrate(kept)  # both schemas are of this version, and nothing is to be done
    durable.Client(kept).close()
    assert state(kept) == before


def test_what_came_later_goes_when_it_is_replaced(
    kept: Settings, file: Path, now: dt.datetime
) -> None:
    before = state(kept)
    add_rows(kept, now, 5)
    (Path(kept.artifact_root) / "later").write_bytes(b"x")
    with pytest.raises(Conflict, match="--replace"):
        backup.restore(kept, file)
    assert state(kept) != before
    backup.restore(kept, file, replace=True)
    assert state(kept) == before


def test_a_backup_is_for_its_owner_and_holds_no_token(kept: Settings, tmp_path: Path) -> None:
    (kept.home / "api-token").write_text("secret")
    path = tmp_path / "b.tar.gz"
    manifest = backup.backup(kept, path)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert not [name for name in names if "token" in name]
    assert set(manifest.files) <= set(names)
    assert manifest.left_out == []
    assert [p.name for p in path.parent.glob(".backup-*")] == []


def test_what_others_keep_is_named_as_left_out(kept: Settings, tmp_path: Path) -> None:
    outside = kept.model_copy(
        update={"mlflow_tracking_uri": "http://mlflow:5000", "artifacts": "memory://artifacts"}
    )
    manifest = backup.backup(outside, tmp_path / "b.tar.gz")
    assert manifest.left_out == [
        "MLflow's database at http://mlflow:5000",
        "the artifacts at memory://artifacts",
    ]


def test_a_file_that_is_there_is_not_overwritten(kept: Settings, file: Path) -> None:
    with pytest.raises(Conflict, match="already"):
        backup.backup(kept, file)


def test_a_home_of_another_place_is_refused(kept: Settings, file: Path) -> None:
    elsewhere = kept.model_copy(update={"artifacts": "/somewhere/else"})
    with pytest.raises(InvalidInput) as refused:
        backup.restore(elsewhere, file, replace=True)
    assert refused.value.issues[0]["loc"] == ["artifact_root"]


def rewritten(file: Path, target: Path, change: Any) -> Path:
    """Copy a backup with another content in each member that `change` knows."""
    with tarfile.open(file) as old, tarfile.open(target, "w:gz") as new:
        for member in old.getmembers():
            data = old.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            data = change(member.name, data)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


DAMAGE: dict[str, Any] = {
    "another format": lambda n, d: (
        json.dumps({**json.loads(d), "format": 9}).encode() if n == "manifest.json" else d
    ),
    "no manifest": lambda n, d: b"{" if n == "manifest.json" else d,
    "a database cut short": lambda n, d: d[:-10] if n == "mlflow.db" else d,
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_backup_changes_nothing(
    kept: Settings, file: Path, tmp_path: Path, case: str
) -> None:
    before = state(kept)
    with pytest.raises(InvalidInput):
        backup.restore(kept, rewritten(file, tmp_path / "damaged", DAMAGE[case]), replace=True)
    assert state(kept) == before
    assert list(kept.home.glob(".restore-*")) == []


def test_a_file_that_is_no_backup_is_refused(kept: Settings, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(InvalidInput, match="damaged"):
            backup.restore(kept, tmp_path / "broken", replace=True)
    with pytest.raises(NotFound):
        backup.restore(kept, tmp_path / "absent")


def test_what_would_lie_outside_of_the_home_is_refused(
    kept: Settings, file: Path, tmp_path: Path
) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for strange in (tarfile.TarInfo("../outside"), tarfile.TarInfo("/outside"), link):
        with tarfile.open(tmp_path / "strange", "w:gz") as tar:
            tar.addfile(strange)
        with pytest.raises(InvalidInput, match="damaged"):
            backup.restore(kept, tmp_path / "strange", replace=True)
    assert not (kept.home / "outside").exists()


def test_nothing_is_restored_under_what_runs(
    kept: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "find", lambda _settings: [object()])
    with pytest.raises(Conflict, match="raysys down"):
        backup.restore(kept, file, replace=True)


def test_an_empty_home_has_nothing_to_back_up(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises((NotFound, Unavailable)):
        backup.backup(settings, tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_a_manifest_is_a_record(kept: Settings, file: Path) -> None:
    with tarfile.open(file) as tar:
        data = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert set(data) == set(Manifest.__struct_fields__)
