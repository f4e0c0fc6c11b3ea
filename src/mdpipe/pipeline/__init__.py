"""The surroundings of a stage: paths, fingerprints, provenance and preflight checks."""
