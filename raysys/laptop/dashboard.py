"""Ray's dashboard over REST: its health, Serve's applications, named actors; Ray itself is not imported."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import httpx

from raysys.errors import Unavailable


class Dashboard:
    """The dashboard of the cluster at `url`, asked with the cluster's token."""

    def __init__(self, url: str, token: str, timeout_seconds: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def alive(self) -> bool:
        """Return whether the cluster's control store answers."""
        try:
            return self._http.get("/api/gcs_healthz", timeout=3.0).is_success
        except httpx.HTTPError:
            return False

    def deploy(self, config: dict[str, Any]) -> None:
        """Make `config` the goal of Serve: its applications are started, changed or removed."""
        self._ask("PUT", "/api/serve/applications/", json=config)

    def applications(self) -> dict[str, dict[str, Any]]:
        """Return Serve's applications by name; empty while Serve does not run."""
        answer: dict[str, dict[str, Any]] = self._ask("GET", "/api/serve/applications/").get(
            "applications", {}
        )
        return answer

    def actors(self) -> dict[str, str]:
        """Return the state of each named actor that is not dead."""
        return {row["name"]: row["state"] for row in self._named_actors()}

    def actor_pids(self) -> dict[str, int]:
        """Return the process of each named actor that is not dead."""
        return {row["name"]: row["pid"] for row in self._named_actors()}

    def _named_actors(self) -> list[dict[str, Any]]:
        answer = self._ask("GET", "/api/v0/actors", params={"limit": 1000, "detail": False})
        rows: list[dict[str, Any]] = answer["data"]["result"]["result"]
        return [row for row in rows if row.get("name") and row["state"] != "DEAD"]

    def resources(self) -> dict[str, Any]:
        """Return the cluster's nodes, as Ray's state API gives them."""
        answer = self._ask("GET", "/api/v0/nodes", params={"limit": 1000, "detail": True})
        rows = [row for row in answer["data"]["result"]["result"] if row["state"] == "ALIVE"]
        return {
            "nodes": len(rows),
            "cpus": sum(row["resources_total"].get("CPU", 0) for row in rows),
        }

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The Ray dashboard at {self._http.base_url} does not answer ({error}). Run `raysys up`.",
            ) from error
        if not answer.is_success:
            raise Unavailable(
                f"The Ray dashboard answered {answer.status_code} to {method} {path}: {answer.text[:2000]}",
                code=answer.status_code,
            )
        return dict(answer.json()) if answer.content else {}
