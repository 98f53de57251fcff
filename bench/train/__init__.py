"""Training beside transformers' Trainer and PEFT, and what training promises."""
