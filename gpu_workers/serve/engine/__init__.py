"""The engine's inside, in token ids: schedule, lanes, cache, decoder, samples."""
