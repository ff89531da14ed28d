"""`raysys lineage`: from a prediction or a version back to the rows that it was made of."""

from __future__ import annotations

from typing import Annotated

import typer

from raysys.cli import screen
from raysys.cli.context import AsJson, opened
from raysys.records import Lineage, plain


def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="A version as FAMILY/VERSION, the id of a prediction, or the id of its request.",
            metavar="PREDICTION_OR_VERSION",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show the chain from a prediction to its version, run, training, snapshot and rows; the hash is recomputed."""
    from raysys.pipelines.lineage import chain

    with opened() as runtime:
        found = chain(runtime.engine, runtime.registry, runtime.settings, name)
    if as_json:
        screen.show_json({**plain(found), "same": found.same})
        return
    for what, told in _links(found):
        screen.say(f"{what:12} {told}")
    screen.show_rows(
        "Its rows" + (f", series {found.series}" if found.series else ""),
        ("run", "source", "rows", "from (UTC)", "to (UTC)", "stored (UTC)"),
        [
            (o.workflow_id or "by hand", o.source, o.rows, o.time_from, o.time_to, o.stored_at)
            for o in found.origins
        ],
        empty="",
    )
    for remark in found.remarks:
        screen.note(f"note: {remark}")


def _links(found: Lineage) -> list[tuple[str, str]]:
    links = []
    if found.prediction_id is not None:
        told = f"{found.prediction_id}, request {found.request_id}, {screen.text(found.predicted_at)} UTC"
        links.append(("prediction", told))
    links.append(("version", " ".join((f"{found.family}/{found.version}", *found.aliases))))
    links += [("MLflow run", found.run_url)] if found.run_url else []
    links += [("training", found.workflow_id)] if found.workflow_id else []
    if found.snapshot is not None:
        taken = found.snapshot
        links.append(("snapshot", f"{taken.hash}, taken {screen.text(taken.created_at)} UTC"))
        span = (
            f" from {screen.text(taken.time_from)} to {screen.text(taken.time_to)} UTC"
            if taken.time_from
            else ""
        )
        links.append(("rows", f"{taken.rows}{span}"))
        verdict = "the same" if found.same else f"another: {found.recomputed}"
        links.append(("recomputed", verdict))
    return links
