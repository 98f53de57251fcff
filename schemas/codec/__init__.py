"""Between bytes and events, in every form that a record may have."""
