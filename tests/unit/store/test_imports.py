"""What a replica or the command line imports of the store stays light."""

from __future__ import annotations

import subprocess
import sys

CODE = (
    "import sys; from raysys.store import events, examples, ledger, observations, predictions, "
    "promotions, quarantine, snapshots; from raysys import db, sources; "
    "from raysys.pipelines import crawl, ingest; "
    "print(sorted({'pandas', 'pandera', 'alembic', 'httpx', 'ray', 'mlflow'} & set(sys.modules)))"
)


def test_store_and_import_load_no_heavy_vendor() -> None:
    shown = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
