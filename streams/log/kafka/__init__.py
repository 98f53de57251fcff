"""The event log on Kafka: appends, reads, groups, topics and registries."""
