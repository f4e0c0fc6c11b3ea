"""The stages of dvc.yaml, a module each; `claims` is a part of `report`."""
