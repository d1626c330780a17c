"""What every part shares and no robot is in: errors, files, versions, worker processes, progress."""
