"""Which events are learned from, in which bytes, under which hash."""
