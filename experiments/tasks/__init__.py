"""The experiments: models, losses and data of each."""
