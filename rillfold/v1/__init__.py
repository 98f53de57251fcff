"""/v1 as any OpenAI client speaks it, and the serving worker's app around it."""
