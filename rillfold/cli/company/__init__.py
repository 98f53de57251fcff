"""What a company does with the API's address and a key alone: its tools, its jobs, what it remembers."""
