"""From shards to checkpoints. It comes with the trainer; nothing is here yet. May import `models` and `pipelines.shards`."""
