"""The artifact store: bytes by path below a folder or an fsspec URL; what they mean is not here."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import fsspec

from raysys.errors import NotFound, Unavailable


class Artifacts:
    """Bytes by path below `root`; holds no connection, so it may be sent to another process."""

    def __init__(self, root: str) -> None:
        self.root = root if "://" in root else str(Path(root).expanduser().absolute())

    def uri(self, path: str) -> str:
        """Return the full address of `path`: a plain absolute path where the root is a folder."""
        return f"{self.root.rstrip('/')}/{path.lstrip('/')}"

    def put(self, path: str, data: bytes) -> str:
        """Store `data` under `path`, whole or not at all, and return its address.

        What stood there before is replaced.
        """
        uri = self.uri(path)
        try:
            if "://" in uri:
                _open(uri).pipe_file(
                    uri, data
                )  # object stores show an object only when it is complete
            else:
                _replace(Path(uri), data)
        except OSError as error:
            raise Unavailable(
                f"{uri} could not be written: {error}. Is the artifact store there?", uri=uri
            ) from error
        return uri

    def get(self, uri: str) -> bytes:
        """Return the bytes at an address of `put` or `uri`; raises NotFound where nothing is."""
        try:
            data: bytes = _open(uri).cat_file(uri)
        except FileNotFoundError as error:
            raise NotFound(
                f"There is no artifact {uri}; was the artifact store moved or emptied?", uri=uri
            ) from error
        except OSError as error:
            raise Unavailable(
                f"{uri} could not be read: {error}. Is the artifact store there?", uri=uri
            ) from error
        return data

    def exists(self, uri: str) -> bool:
        """Tell whether there is something at the address."""
        return bool(_open(uri).exists(uri))

    def names(self, path: str) -> list[str]:
        """Return the names of what lies directly below `path`, in order; none where nothing is."""
        uri = self.uri(path)
        try:
            found = _open(uri).ls(uri, detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Unavailable(
                f"{uri} could not be listed: {error}. Is the artifact store there?", uri=uri
            ) from error
        return sorted(str(each).rstrip("/").rsplit("/", 1)[-1] for each in found)

    def remove(self, uri: str) -> bool:
        """Remove what is at the address, with all below it; return whether there was anything."""
        store = _open(uri)
        try:
            store.rm(uri, recursive=True)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"{uri} could not be removed: {error}.", uri=uri) from error
        return True


def _open(uri: str) -> Any:
    return fsspec.url_to_fs(uri)[0]


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
