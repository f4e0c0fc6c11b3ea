"""One module a stage of dvc.yaml. Only code in here knows where the pipeline's files are."""
