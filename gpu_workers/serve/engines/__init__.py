"""What can stand behind the port of serving."""
