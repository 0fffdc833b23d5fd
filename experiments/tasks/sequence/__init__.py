"""Classification, recall, regression and language models: lra, pixels, synthetic, wikitext."""
