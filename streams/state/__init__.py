"""Where rows lie that were folded: in a changelog, in a store beside it, and what was refused for them."""
