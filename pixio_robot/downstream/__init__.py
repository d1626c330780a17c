"""What an encoder is worth in downstream tasks."""
