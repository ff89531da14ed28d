"""One file that holds all that a home keeps, and the home made again from it; secrets and caches are not in it.

Databases are copied first and files after them: whatever a row names is then in the file, and a file that no row names
yet does no harm. Nothing has to stop for a backup; for a restore everything has to.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from raysys.errors import Conflict, InvalidInput, NotFound, Unavailable
from raysys.laptop import processes
from raysys.records import Record, plain, revive
from raysys.settings import Settings

Notify = Callable[[str], None]

FORMAT = 1
MANIFEST = "manifest.json"
ARTIFACTS = "artifacts"
POSTGRES_DUMP = "database.pgdump"
ROWS_SECONDS = 3600


class Manifest(Record, frozen=True):
    """What a backup holds, and of which raysys and home."""

    format: int
    raysys: str
    at: datetime
    database: str
    artifact_root: str
    files: dict[str, str]
    left_out: list[str] = []


# -- out -------------------------------------------------------------------------------------------


def backup(settings: Settings, target: Path, notify: Notify = lambda _message: None) -> Manifest:
    """Write everything into the file `target`, whole or not at all, and return what it holds.

    Raises Conflict when the file is there already, Unavailable when a database does not answer.
    """
    if target.exists():
        raise Conflict(f"{target} is there already; give the name of a new file.", path=str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as folder:
        dumps = _dump(settings, Path(folder), notify)
        unfinished = Path(folder) / "whole"
        with tarfile.open(unfinished, "w:gz", compresslevel=1) as tar:
            for path in dumps:
                tar.add(path, path.name)
            left_out = _add_artifacts(settings, tar, notify)
            manifest = Manifest(
                format=FORMAT,
                raysys=version("raysys"),
                at=datetime.now(UTC),
                database=_kind(settings),
                artifact_root=settings.artifact_root,
                files={path.name: _sha256(path) for path in dumps},
                left_out=left_out,
            )
            _add_text(tar, MANIFEST, manifest)
        unfinished.chmod(0o600)
        unfinished.replace(target)
    return manifest


def _kind(settings: Settings) -> str:
    return sa.make_url(settings.database).get_backend_name()


def _databases(settings: Settings) -> dict[str, Path]:
    """Return the SQLite files by their name in a backup."""
    found = {"mlflow.db": settings.home / "mlflow.db"} if settings.runs_mlflow else {}
    if _kind(settings) == "sqlite":
        urls = {"database.db": settings.database, "workflows.db": settings.workflow_database}
        found |= {name: Path(str(sa.make_url(url).database)) for name, url in urls.items()}
    return found


def _dump(settings: Settings, folder: Path, notify: Notify) -> list[Path]:
    dumps = []
    if _kind(settings) == "postgresql":
        notify("Dumping PostgreSQL")
        dumps.append(folder / POSTGRES_DUMP)
        _postgres(settings, "pg_dump", "--format=custom", f"--file={dumps[0]}")
    for name, file in _databases(settings).items():
        if not file.exists():
            raise NotFound(f"{file} is not there: nothing was kept in {settings.home} yet.")
        notify(f"Copying {file.name}")
        copy_sqlite(file, folder / name)
        dumps.append(folder / name)
    return dumps


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that others may be writing, as of one moment; raises Unavailable when it cannot be read."""
    try:
        with (
            closing(sqlite3.connect(source, timeout=30)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
    except sqlite3.Error as error:
        raise Unavailable(f"{source} could not be copied: {error}", path=str(source)) from error


def _postgres(settings: Settings, program: str, *words: str) -> None:
    if shutil.which(program) is None:
        raise Unavailable(
            f"{program} is not installed; it comes with PostgreSQL's client (postgresql-client)."
        )
    url = sa.make_url(settings.database)
    given = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
    }
    environment = {**os.environ, **{name: str(value) for name, value in given.items() if value}}
    command = [program, "--no-password", f"--dbname={url.database}", *words]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=ROWS_SECONDS
    )
    if done.returncode != 0:
        raise Unavailable(f"{program} failed: {done.stderr.strip()[-2000:]}")


def _add_artifacts(settings: Settings, tar: tarfile.TarFile, notify: Notify) -> list[str]:
    left_out = [] if settings.runs_mlflow else [f"MLflow's database at {settings.tracking_uri}"]
    if "://" in settings.artifact_root:
        return [*left_out, f"the artifacts at {settings.artifact_root}"]
    root = Path(settings.artifact_root)
    if root.is_dir():
        notify("Copying artifacts")
        tar.add(root, ARTIFACTS)
    return left_out


def _add_text(tar: tarfile.TarFile, name: str, manifest: Manifest) -> None:
    data = json.dumps(plain(manifest), indent=2).encode()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o600
    tar.addfile(member, io.BytesIO(data))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- in --------------------------------------------------------------------------------------------


def restore(
    settings: Settings,
    source: Path,
    *,
    replace: bool = False,
    notify: Notify = lambda _message: None,
) -> Manifest:
    """Make the home what it was when `source` was written, and return what that holds.

    Raises Conflict while anything of the home runs, or when it holds something and `replace` is off; InvalidInput when
    the file is no backup, is damaged, or is of another kind of database or of another place.
    """
    if processes.find(settings):
        raise Conflict(f"Something of {settings.home} runs. Run `raysys down` first.")
    settings.home.mkdir(parents=True, exist_ok=True)
    with _unpacked(source, settings.home, notify) as folder:
        manifest = _manifest(folder, source)
        _refuse_another_place(manifest, settings)
        _refuse_damage(manifest, folder)
        if not replace:
            _refuse_to_replace(settings)
        _put_databases(settings, folder, notify)
        _put_artifacts(settings, folder, notify)
    return manifest


@contextmanager
def _unpacked(source: Path, home: Path, notify: Notify) -> Iterator[Path]:
    notify(f"Reading {source}")
    with tempfile.TemporaryDirectory(prefix=".restore-", dir=home) as folder:
        try:
            with tarfile.open(source, "r:gz") as tar:
                _extract(tar, Path(folder).resolve())
        except FileNotFoundError:
            raise NotFound(f"There is no file {source}.", path=str(source)) from None
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InvalidInput(f"{source} is no backup, or is damaged: {error}") from error
        yield Path(folder)


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpack files and folders; raise TarError for anything else, and for what would lie outside of `folder`."""
    # Python has it since 3.11.4; Debian 12's is older.
    tar.extraction_filter = getattr(tarfile, "data_filter", None)
    for member in tar:
        inside = (folder / member.name).resolve().is_relative_to(folder)
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} does not belong in a backup")
        tar.extract(member, folder)


def _manifest(folder: Path, source: Path) -> Manifest:
    try:
        manifest: Manifest = revive(json.loads((folder / MANIFEST).read_text()), Manifest)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{source} is no backup of raysys: it has no {MANIFEST}.") from error
    if manifest.format != FORMAT:
        raise InvalidInput(
            f"{source} has the format {manifest.format}; this raysys reads {FORMAT}."
        )
    return manifest


def _refuse_another_place(manifest: Manifest, settings: Settings) -> None:
    here: dict[str, Any] = {"database": _kind(settings), "artifact_root": settings.artifact_root}
    # Rows name artifacts by their whole path.
    issues = [
        {"loc": [name], "reason": f"is {getattr(manifest, name)} in the backup and {value} here"}
        for name, value in here.items()
        if getattr(manifest, name) != value
    ]
    if issues:
        raise InvalidInput("The backup is of another place.", issues=issues)


def _refuse_damage(manifest: Manifest, folder: Path) -> None:
    for name, sha256 in manifest.files.items():
        if not (folder / name).is_file() or _sha256(folder / name) != sha256:
            raise InvalidInput(f"{name} of the backup is damaged; nothing was changed.")


def _refuse_to_replace(settings: Settings) -> None:
    there = [str(path) for path in _databases(settings).values() if path.exists()]
    if _kind(settings) == "postgresql":
        engine = sa.create_engine(settings.database)
        try:
            there += [f"the table {t}" for t in sa.inspect(engine).get_table_names()[:1]]
        except sa.exc.OperationalError as error:
            raise Unavailable(f"The database does not answer: {error.orig}") from error
        finally:
            engine.dispose()
    if there:
        raise Conflict(
            f"There is something already: {', '.join(there)}. Add --replace to lose it.",
            there=there,
        )


def _put_databases(settings: Settings, folder: Path, notify: Notify) -> None:
    if _kind(settings) == "postgresql":
        notify("Restoring PostgreSQL")
        dump = str(folder / POSTGRES_DUMP)
        words = ("--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error")
        _postgres(settings, "pg_restore", *words, dump)
    for name, file in _databases(settings).items():
        notify(f"Restoring {file.name}")
        for suffix in (
            "-wal",
            "-shm",
        ):  # what belongs to the old file would be read into the new one
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        shutil.move(folder / name, file)


def _put_artifacts(settings: Settings, folder: Path, notify: Notify) -> None:
    if not (folder / ARTIFACTS).is_dir():
        return
    notify("Restoring artifacts")
    root = Path(settings.artifact_root)
    if root.exists():
        shutil.rmtree(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder / ARTIFACTS, root)
