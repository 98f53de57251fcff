"""Events with a seed, and real workers as child processes."""

from tests.support.folding import agree, kafka, produce, some_events, topics, workers

__all__ = ["agree", "kafka", "produce", "some_events", "topics", "workers"]
