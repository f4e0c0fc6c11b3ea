"""Data: from raw text and pictures to the batches of tokens that a model sees. Needs no torch.

Imports run one way, so that a stage depends on just what it reads: `sources` → `raw` → `work` → `artifacts`, and
`encoding` → `splits` → `raw`. `encoding` also imports `encoded`, `tokenizers` and `pixels`, which know no source.
Only `sources` and tokenizers that others trained need a network, and only where a source is not on this machine yet.
"""
