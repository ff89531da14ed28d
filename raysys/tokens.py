"""The secrets of one home: made at the first `up`, kept in files that only their owner reads."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from raysys.settings import Settings

API_TOKEN_NAME = "api-token"  # noqa: S105  the name of a file
RAY_TOKEN_NAME = "ray-token"  # noqa: S105  likewise


def api_token(settings: Settings) -> str:
    """Return the bearer token of /admin: the setting, else the home's own, made now if there is none."""
    return settings.api_token.get_secret_value() or _kept(settings.home / API_TOKEN_NAME)


def hook_key(settings: Settings) -> str:
    """Return the last part of the path at which MLflow tells of a moved alias: it opens nothing else."""
    return hmac.new(api_token(settings).encode(), b"hook", "sha256").hexdigest()[:32]


def ray_token(settings: Settings) -> str:
    """Return the token of the Ray cluster that `up` starts, made now if there is none."""
    return _kept(settings.home / RAY_TOKEN_NAME)


def _kept(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(handle, "w") as file:
        token = secrets.token_hex(32)
        file.write(token)
    return token
