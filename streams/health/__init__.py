"""Does a worker get on? What it was seen to do, and the verdict."""
