"""The applications that the Serve config names: builders, and nothing else."""

from __future__ import annotations

from typing import Any

from ray import serve

from deployments.gateway import GatewayReplica
from deployments.model import FamilyReplica
from raysys.serving.config import DEPLOYMENT, GATEWAY_DEPLOYMENT


def model(args: dict[str, Any]) -> serve.Application:
    """Build the application of the family `args["family"]`."""
    deployment = serve.deployment(serve.ingress()(FamilyReplica), name=DEPLOYMENT)
    return deployment.bind(args["family"])


def gateway(args: dict[str, Any]) -> serve.Application:
    """Build the application that answers all paths but the families' own."""
    deployment = serve.deployment(serve.ingress()(GatewayReplica), name=GATEWAY_DEPLOYMENT)
    return deployment.bind(args["families"])
