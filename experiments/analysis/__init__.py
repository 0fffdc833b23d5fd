"""Looks into trained models: switches, gradients, learning curves."""
