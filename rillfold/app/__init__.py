"""An application of a user's own: what it adds to ours, found and checked at the edge."""
