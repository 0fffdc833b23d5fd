"""The experiments: what each trains and on which data."""
