"""What turns dvc.yaml into rules of Snakemake and lets the two engines share one set of artifacts."""
