"""May a run begin, how is it trained, what is said of it, and may its adapter be served."""
