"""Files of rows into a topic."""
