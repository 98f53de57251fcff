"""How long a group waits for a silent worker is an operator's choice, also where it is long."""

from __future__ import annotations

import sys
from pathlib import Path

from rillfold.embedded.stack import Endpoints
from schemas.topics import TopicNames
from tests.support.worker import WorkerProcess, external


def test_a_fold_whose_group_is_patient_begins(
    stack: Endpoints, names: TopicNames, topics: None, tmp_path: Path
) -> None:
    environment = external(stack.bootstrap_servers, names.prefix, tmp_path, SESSION_TIMEOUT="60")
    worker = WorkerProcess("patient", ("worker", "fold", "--only", "companies"), environment, tmp_path)
    try:
        worker.start().until_ready()
    finally:
        worker.close()
        sys.stdout.write(worker.log())
