"""What surrounds a stage: paths, fingerprints, provenance, supervision and preflight checks."""
