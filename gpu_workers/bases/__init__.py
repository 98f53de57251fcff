"""Base models: files, device, template; from a name to what trains and answers."""
