"""The surroundings of a stage: paths, trained models and their samples, fingerprints, provenance, preflight checks."""
