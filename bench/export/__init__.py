"""Exported files, and llama.cpp, which reads them."""
