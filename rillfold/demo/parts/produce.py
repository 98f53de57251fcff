"""Part 1: topics, companies, tools with their secrets, and data from four kinds of clients, good and bad."""

import asyncio
import json
import sys
import time

import msgspec

from rillfold.client import Client
from rillfold.demo import data
from rillfold.demo.data import ACME, COMPANIES, GLOBEX, DemoCompany
from rillfold.demo.plain import plain
from rillfold.demo.stage import NotAsTold, Stage
from rillfold.event_log import first
from rillfold.http.keys import ApiKeys
from rillfold.processes import started
from schemas.company import ConversationIngested, Message, RecordIngested
from streams.log.kafka.producer import Producer

TOPIC = "company-data"
RECORDS = 20_000
# A client that has never heard of Rillfold.
FOREIGN = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1]})
for line in sys.stdin.buffer.read().splitlines():
    producer.produce(sys.argv[2], line)
producer.flush()
"""


async def tell(stage: Stage) -> None:
    await stage.rillfold("topics", "create")
    stage.crew.begin(started(reacting=False))
    with stage.narrator.live("starting the workers", told=False):
        stage.crew.until_ready(("fold", "sink", "bridge", "api"), each=stage.say)
    stage.api = Client(stage.urls["api"], ApiKeys.of(stage.data_dir).admin_key_file.read_text())
    for company in COMPANIES:
        await _join(stage, company)
    await _by_command(stage, ACME)
    await _by_python(stage, GLOBEX)
    await _by_rest(stage, GLOBEX)
    await _by_a_stranger(stage, ACME)


async def _join(stage: Stage, company: DemoCompany) -> None:
    joined = await stage.client.join(company.id, company.name)
    stage.keys[company.id] = joined["api_key"]
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters(),
            "endpoint": f"{stage.tools.url}/{company.id}/{tool.name}",
            "auth": {"type": "bearer", "token": stage.tokens[company.id]},
        }
        for tool in company.tools
    ]
    await stage.client.register_tools(company.id, tools)
    stage.produced[company.id] = 0
    stage.say(f"{company.name} registered {len(tools)} tools; the tokens went to the secret store, not to the log")


async def _by_command(stage: Stage, company: DemoCompany) -> None:
    rows = [_row(company, turns) for turns in conversations(company)]
    text = b"\n".join(msgspec.json.encode(row) for row in rows)
    told = await stage.rillfold("produce", TOPIC, "--company", company.id, "--json", given=text)
    stage.produced[company.id] += json.loads(told)["sent"]
    stage.say(f"by command: {len(rows)} conversations of {company.name}")


async def _by_python(stage: Stage, company: DemoCompany) -> None:
    events = [
        ConversationIngested(**first(company.id), agent="default", messages=turns) for turns in conversations(company)
    ]
    records = [
        RecordIngested(
            **first(company.id),
            entity=f"order-{number % 500}",
            kind="order",
            data=json.dumps({"number": number, "cents": number * 37 % 90_000}),
        )
        for number in range(RECORDS)
    ]
    began = time.monotonic()
    async with Producer(stage.log, stage.settings.topic_names()) as producer:
        await producer.send_many([*events, *records])
    rate = (len(events) + len(records)) / (time.monotonic() - began)
    stage.produced[company.id] += len(events) + len(records)
    stage.figures["events produced by Python, a second"] = f"{rate:,.0f}"
    stage.say(
        f"by Python: {len(events)} conversations and {len(records):,} orders of {company.name}, {rate:,.0f} a second"
    )


async def _by_rest(stage: Stage, company: DemoCompany) -> None:
    output = {
        "type": "agent_output.ingested",
        "company": company.id,
        "agent": "default",
        "prompt": "Is the depot open on Sundays?",
        "output": "No, it opens again on Monday.",
        "success": False,
    }
    async with Client(stage.urls["api"], stage.keys[company.id]) as client:
        (placed,) = await client.produce(TOPIC, [output])
    stage.produced[company.id] += 1
    stage.say(f"by REST: an answer that was wrong, at {placed['topic']}/{placed['partition']}/{placed['offset']}")


async def _by_a_stranger(stage: Stage, company: DemoCompany) -> None:
    """confluent-kafka in a process of its own: JSON that we take, and two records that nobody could."""
    good = {"type": "text.ingested", "company": company.id, "text": "Our returns desk closes at six."}
    lines = [json.dumps(good).encode(), b'{"type": "text.ingested", "company": ', b"\x1f\x8b\x08 a stranger's bytes"]
    topic = stage.settings.topic_names().wire(TOPIC)
    line = [sys.executable, "-P", "-c", FOREIGN, stage.endpoints.bootstrap_servers, topic]
    child = await asyncio.create_subprocess_exec(*line, stdin=asyncio.subprocess.PIPE)
    await child.communicate(b"\n".join(lines))
    if child.returncode:
        raise NotAsTold(f"the foreign client ended with {child.returncode}")
    stage.produced[company.id] += 1
    stage.say("by a client that never heard of Rillfold: one event in JSON, two records that are none")


def conversations(company: DemoCompany) -> list[tuple[Message, ...]]:
    """To learn from, and to be measured on: which is which is decided by the dataset's own rule."""
    measured = [data.conversation(company, request) for request in data.held_out(company)]
    return [*data.training(company), *plain(company), *(turns[:2] for turns in measured)]


def _row(company: DemoCompany, turns: tuple[Message, ...]) -> dict[str, object]:
    return {"type": "conversation.ingested", "company": company.id, "agent": "default", "messages": turns}
