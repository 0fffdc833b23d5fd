"""Prediction of raw speech samples."""
