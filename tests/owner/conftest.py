"""Events with a seed, and real workers as child processes."""

from tests.support.folding import agree, kafka, produce, some_events, started, topics, workers

__all__ = ["agree", "kafka", "produce", "some_events", "started", "topics", "workers"]
