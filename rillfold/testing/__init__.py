"""The test kit: folds and consumers over a log, with a clock of your own, where crash and rebalance are inputs."""
