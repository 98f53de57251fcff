"""What leaves: adapters and bases as files of others, and llama.cpp, which reads them."""
