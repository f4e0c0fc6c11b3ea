"""One prepared run on a GPU: is training right there, how fast is it, how fast are samplers, and what is learned.

    PYTHONPATH=src python -m mdpipe.benchmarks.gpu --out DIR

It needs a checkout, torch, numpy, pydantic, PyYAML, safetensors and rich. Every part runs in a process of its own,
within a time limit, and writes its file after every measurement, so that a part that fails or hangs costs no result of
another. `--tiny` rehearses all of it on a CPU.
"""
