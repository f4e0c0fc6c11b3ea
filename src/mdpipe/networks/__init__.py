"""Networks: denoisers, from corrupted tokens to hidden states and on to logits. No loss and no schedule in here."""
