"""All of raysys on one machine: what `up` starts, `status` finds and `down` ends. No cluster of several nodes."""

from __future__ import annotations

from raysys.laptop.stack import Stack

__all__ = ["Stack"]
