"""What happens to video, from files to shards. Knows nothing of Dagster and nothing of training."""
