"""Numbers and figures of trained models: switches, gradients, learning curves."""
