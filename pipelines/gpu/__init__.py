"""What one GPU can verify in 12 minutes: that training computes there what it does on a CPU, and how fast."""
