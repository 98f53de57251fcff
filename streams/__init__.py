"""The only room that knows Kafka and Faust."""
