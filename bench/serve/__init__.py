"""What our engine does beside its peers, part by part: `python -m bench.serve --only peft,flat --json`."""
