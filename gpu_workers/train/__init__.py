"""From dataset rows to an adapter whose bytes its inputs decide."""
