"""Global steps: near-duplicates, concepts and resampling. They come with the stages that embed clips; nothing is here yet."""
