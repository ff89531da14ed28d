"""raysys on Kubernetes: manifests, their checks, a client of KubeRay's kinds; nothing of raysys imports this."""
