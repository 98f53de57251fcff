"""Kafka and Postgres on a bare machine: no Docker, no system packages, one folder for all data."""
