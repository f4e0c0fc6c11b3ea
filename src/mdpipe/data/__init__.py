"""Data: from raw text and images to the batches of tokens that a model sees. Needs no torch.

Imports go one way, so that a stage depends only on what it reads: from `sources` and `tokenize`, which do not know each
other, to `splits` and `training_batches`, on to `dataset`, `parallel`, `raw` and `tokenizers`, and from these to
`artifacts` and `pixels`. Only `sources` and pretrained tokenizers need a network, and only if the files are not on this
machine yet.
"""
