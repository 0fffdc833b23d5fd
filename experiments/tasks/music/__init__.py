"""Next-frame prediction on polyphonic music."""
