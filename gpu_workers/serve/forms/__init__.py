"""What an answer is held to while it is made: a grammar says which tokens may come next, and which must."""
