"""The benchmark behind `raysys bench`: this server and plain FastAPI, side by side on one machine."""
