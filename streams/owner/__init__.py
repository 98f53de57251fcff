"""The Faust worker: which partitions it owns, how a late owner is fenced, how a new one is refilled."""
