"""Topics on a broker that tells late of what was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import TopicAlreadyExistsError

from streams.log.kafka.log import KafkaLog
from streams.log.port import TopicSpec


async def test_a_topic_that_another_process_makes_at_this_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, answers = TopicSpec("t", 2), iter([{}, {}, {"t": TopicSpec("t", 2)}])

    async def refused(_topics: object) -> Any:
        return SimpleNamespace(topic_errors=[("t", TopicAlreadyExistsError.errno, "")])

    async def admin(_kind: object) -> Any:
        return SimpleNamespace(create_topics=refused)

    async def described(_topics: object) -> Any:
        return next(answers)

    log = KafkaLog("nowhere:1")
    monkeypatch.setattr(log, "_client", admin)
    monkeypatch.setattr(log, "describe", described)
    assert await log.create([made]) == []
    assert next(answers, None) is None, "it returned before the topic was there"
