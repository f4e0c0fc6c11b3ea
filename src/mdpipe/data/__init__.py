"""Data: from raw text and images to the batches of tokens that a model sees. Needs no torch.

Imports run one way, so that a stage depends only on what it reads: `sources` → `raw`, `parallel` → `artifacts`, and
`tokenize` → `splits` → `raw`. `tokenize` also imports `dataset`, `tokenizers` and `pixels`, which know no source. Only
`sources` and pretrained tokenizers need a network, and only if the files are not on this machine yet.
"""
