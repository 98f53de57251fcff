"""How good answers are: calls matched, outcomes counted, differences beyond noise."""
