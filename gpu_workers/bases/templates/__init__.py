"""How a conversation is written for a model: ChatML, or the model's own template, run where it can touch nothing."""
