"""What a shop earns: an application on Rillfold."""
