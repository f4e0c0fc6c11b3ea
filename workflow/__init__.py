"""Rules of Snakemake from dvc.yaml, and one set of artifacts shared by the two engines."""
