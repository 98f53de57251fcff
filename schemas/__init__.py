"""What it is: events, their Avro schemas, the topic table, and the total codec between bytes and events."""
