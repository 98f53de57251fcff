"""What is true: each projection is a State, an initial value and a pure fold."""
