"""Training: windows of a series, teacher forcing, one compiled loop for all seeds, checkpoints that resume to the bit."""
