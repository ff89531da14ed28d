"""Load by aiohttp, where wrk is not installed: `python -m tests.bench.flood URL BODY CONNECTIONS SECONDS PAUSE_MS`."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp
import numpy as np


async def flood(
    url: str, body: bytes, connections: int, seconds: float, pause_seconds: float
) -> dict[str, float]:
    """Ask on so many connections for so long, each after a pause; return what `load.Load` holds."""
    latencies: list[float] = []
    counts = {"failed": 0, "cut": 0}
    end = time.perf_counter() + seconds
    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=connections)

    async def ask(session: aiohttp.ClientSession) -> None:
        while time.perf_counter() < end:
            await asyncio.sleep(pause_seconds)
            started = time.perf_counter()
            try:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    counts["failed"] += answer.status >= 300
                    latencies.append(time.perf_counter() - started)
            except (aiohttp.ClientError, TimeoutError):
                counts["cut"] += 1

    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(ask(session) for _ in range(connections)))
    p50, p99 = (float(v) for v in np.percentile(latencies or [0.0], [50, 99]) * 1e3)
    return {
        "requests": len(latencies),
        "seconds": seconds,
        "p50_ms": p50,
        "p99_ms": p99,
        **counts,
    }


def main(url: str, body: str, connections: str, seconds: str, pause_ms: str) -> None:
    """Run one flood and print one line of JSON."""
    pause = float(pause_ms) / 1e3
    found = asyncio.run(flood(url, body.encode(), int(connections), float(seconds), pause))
    sys.stdout.write(f"JSON{json.dumps(found)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
