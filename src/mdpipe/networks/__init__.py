"""Networks: denoisers that turn corrupted tokens into hidden states and those into logits. No loss and no schedule here."""
