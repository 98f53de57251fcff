"""What every HTTP door of ours has: keys, hosts, limits, strict JSON, one shape of errors."""
