"""A broker that goes just as a fold starts: what ends it says so by name, and asks to be started again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from streams.health.watchman import EX_SOFTWARE

STARTS = """
import sys
from pathlib import Path
from projections.datasets import DATASETS
from schemas.topics import TopicNames
from streams.log.kafka.access import KafkaAccess
from streams.owner import app

async def found(*_):
    return 1  # as a broker answered that is away now

app._prepare = found
app.run(app.Worker(KafkaAccess("127.0.0.1:9"), "t-rillfold", "w", Path(sys.argv[1]), TopicNames("t-")), [DATASETS])
"""


async def test_a_broker_that_goes_before_faust_has_begun_is_named(tmp_path: Path) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTS, str(tmp_path), stdout=pipe, stderr=pipe, cwd=Path(__file__).parents[2]
    )
    said = (await asyncio.wait_for(process.communicate(), 60))[1].decode()
    assert process.returncode == EX_SOFTWARE, said[-2000:]
    last = said.strip().splitlines()[-1]
    assert last.startswith("streams.errors.Unreachable: Kafka at 127.0.0.1:9 does not answer")
