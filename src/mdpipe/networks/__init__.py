"""Networks: denoisers that map partially masked tokens to hidden states, and hidden states to logits.

A network knows neither losses nor schedules. Three kinds come with the package, each in the file of its name:

- `transformer`: the paper's transformer for text, bidirectional or causal.
- `unet`: the paper's U-Net for small images.
- `uvit`: the paper's U-ViT for larger images.

`base` defines their interface, builds them from their configurations, saves and loads them. `layers` and `image_utils`
hold what they share; `runtime` configures the process that runs them.
"""
