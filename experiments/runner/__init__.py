"""What every experiment shares: the contract, flags, launching, records."""
