"""Two made-up companies, and the story that `rillfold demo` tells about them."""
