"""Pipelines of the same stages as dvc.yaml: how models, tables and figures of this project are made."""
