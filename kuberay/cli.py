"""`raysys kube`: thin commands over the manifests, their checks and the client."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any

import typer

from kuberay import checks, manifests
from raysys.cli import screen
from raysys.errors import WorkflowError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="raysys on Kubernetes, by KubeRay.",
)

Overlay = Annotated[
    str,
    typer.Argument(help="An overlay of this package, or the folder of a kustomization of yours."),
]
Image = Annotated[
    str, typer.Option("--image", help="Image to run instead of the one that the overlay names.")
]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace that raysys is in.")]
Seconds = Annotated[float, typer.Option("--timeout", min=1, help="Longest wait, in seconds.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SERVICE_NAME = "raysys"
CONTAINERS = {"head": "ray-head", "serving": "ray-worker", "training": "ray-worker"}


def _rendered(overlay: str, image: str) -> list[dict[str, Any]]:
    documents = manifests.render(manifests.folder_of(overlay), image)
    checks.check(documents)
    return documents


def _opened(context: str, namespace: str) -> Any:
    from kuberay.client import KubeRay

    return KubeRay.open(context, namespace)


@app.command()
def render(overlay: Overlay, image: Image = "") -> None:
    """Print an overlay's manifests; exit 1 with path and reason when one of them is wrong."""
    sys.stdout.write(manifests.dump(_rendered(overlay, image)))


@app.command()
def generate() -> None:
    """Write the generated files anew: Serve's config and a node's environment from the settings, and monitoring."""
    for path in manifests.generate():
        screen.say(f"{path} written")


@app.command()
def diff(
    overlay: Overlay, image: Image = "", context: Context = "", namespace: Namespace = "raysys"
) -> None:
    """Show what applying an overlay would change; exit 1 when something would."""
    from kuberay import rollout

    documents = _rendered(overlay, image)
    with _opened(context, namespace) as kube:
        text = rollout.diff(kube, documents)
    sys.stdout.write(text)
    if text:
        raise typer.Exit(1)


@app.command()
def apply(
    overlay: Overlay,
    image: Image = "",
    context: Context = "",
    namespace: Namespace = "raysys",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the server only check it.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it serves.")] = False,
    roll_back: Annotated[
        bool, typer.Option("--rollback", help="Go back when it does not serve in time; waits.")
    ] = False,
    timeout_seconds: Seconds = 1200,
) -> None:
    """Apply an overlay, by server-side apply and with unknown fields refused."""
    from kuberay import rollout

    documents = _rendered(overlay, image)
    with _opened(context, namespace) as kube:
        if dry_run or not (wait or roll_back):
            rollout.apply(kube, documents, dry_run=dry_run, notify=screen.say)
            return
        rollout.apply_healthy(
            kube,
            documents,
            timeout_seconds=timeout_seconds,
            roll_back=roll_back,
            notify=screen.say,
        )


@app.command()
def delete(
    overlay: Overlay,
    context: Context = "",
    namespace: Namespace = "raysys",
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also the volume of artifacts, and what is on it.")
    ] = False,
) -> None:
    """Delete what an overlay names; the namespace stays, and so do volumes unless told."""
    from kuberay import rollout

    documents = manifests.render(manifests.folder_of(overlay))
    with _opened(context, namespace) as kube:
        rollout.delete(kube, documents, volumes=volumes, notify=screen.say)


@app.command()
def status(context: Context = "", namespace: Namespace = "raysys", as_json: AsJson = False) -> None:
    """Show the service, its applications and its Pods; exit 1 when it is not ready."""
    from kuberay.client import describe

    with _opened(context, namespace) as kube:
        service = kube.services.get(SERVICE_NAME)
        pods = kube.pods("raysys.io/pool")
        ready = kube.services.ready(service)
    active = (service.get("status") or {}).get("activeServiceStatus") or {}
    applications = {
        name: found.get("status")
        for name, found in (active.get("applicationStatuses") or {}).items()
    }
    if as_json:
        state = {
            "ready": ready,
            "cluster": active.get("rayClusterName"),
            "applications": applications,
        }
        screen.show_json({**state, "says": describe(service), "pods": [_pod(p) for p in pods]})
    else:
        screen.say(f"{SERVICE_NAME}: {describe(service)}")
        screen.show_rows(
            "Applications", ("name", "state"), list(applications.items()), empty="None."
        )
        rows = [tuple(_pod(p).values()) for p in pods]
        screen.show_rows("Pods", ("name", "pool", "phase", "node"), rows, empty="No Pod yet.")
    if not ready:
        raise typer.Exit(1)


def _pod(pod: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": pod["metadata"]["name"],
        "pool": pod["metadata"]["labels"].get("raysys.io/pool"),
        "phase": (pod.get("status") or {}).get("phase"),
        "node": (pod.get("spec") or {}).get("nodeName"),
    }


@app.command()
def logs(
    pool: Annotated[str, typer.Argument(help="head, serving or training.")] = "head",
    context: Context = "",
    namespace: Namespace = "raysys",
    tail: Annotated[int, typer.Option("--tail", min=0, help="Lines of each Pod.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    timeout_seconds: Seconds = 3600,
) -> None:
    """Print the logs of a pool's Pods; with --follow those of its first Pod."""
    if pool not in CONTAINERS:
        raise typer.BadParameter(f"there is no pool {pool!r}; there are {', '.join(CONTAINERS)}")
    with _opened(context, namespace) as kube:
        names = [p["metadata"]["name"] for p in kube.pods(f"raysys.io/pool={pool}")]
        for name in names[:1] if follow else names:
            lines = kube.logs(
                name, CONTAINERS[pool], tail=tail, follow=follow, timeout_seconds=timeout_seconds
            )
            for line in lines:
                screen.say(f"{name}: {line}")
    if not names:
        screen.note(f"There is no Pod of the pool {pool}.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    words: typer.Context,
    context: Context = "",
    namespace: Namespace = "raysys",
    wait: Annotated[bool, typer.Option("--wait", help="Exit 0 only when it succeeded.")] = False,
    timeout_seconds: Seconds = 86400,
) -> None:
    """Run a command inside the running cluster: raysys kube submit -- python -m workflows.train insurance."""
    from kuberay import rollout

    if not words.args:
        raise typer.BadParameter("give the command after --")
    with _opened(context, namespace) as kube:
        cluster = kube.services.active_cluster(SERVICE_NAME)
        name = f"raysys-{secrets.token_hex(4)}"
        image = rollout.image_of(kube.services.get(SERVICE_NAME))
        kube.jobs.create(rollout.job(name, cluster, words.args, image))
        screen.say(name)
        if not wait:
            return
        ended = kube.jobs.wait_ended(name, timeout_seconds=timeout_seconds, notify=screen.note)
        if not kube.jobs.succeeded(ended):
            said = (ended.get("status") or {}).get("message") or "no reason given"
            raise WorkflowError(f"RayJob {name} failed: {said}. See `kubectl logs job/{name}`.")
