"""What every training shares: processes, checkpoints, run folders, logs and curves."""
