"""The engine's inside, in token ids: lanes, cache, decoder, samples."""
