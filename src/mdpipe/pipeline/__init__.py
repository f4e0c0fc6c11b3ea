"""The surroundings of a stage: paths, fingerprints, provenance, supervision and preflight checks."""
