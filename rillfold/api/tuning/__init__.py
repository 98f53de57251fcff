"""/v1/files and /v1/fine_tuning as OpenAI's clients tune: a file is events, a job is a training request."""
