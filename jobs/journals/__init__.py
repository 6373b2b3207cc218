"""What was done, durably: receipts, epochs, and what they say of a run."""
