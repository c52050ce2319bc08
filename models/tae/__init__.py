"""The temporal autoencoder: network, losses, discriminator, tiling. docs/models/tae.md describes it."""
