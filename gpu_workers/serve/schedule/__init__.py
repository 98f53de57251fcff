"""What goes through the model next: plain arithmetic over rows, pages and owners."""
