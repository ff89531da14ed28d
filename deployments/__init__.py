"""What Ray Serve runs: HTTP in front of `raysys`; no pipeline and no workflow lives here."""
