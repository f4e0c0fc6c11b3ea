"""The surroundings of a stage: paths, trained models and their samples, run hashes, provenance, preflight checks."""
