"""Training our own text-to-image model: its autoencoder, its text encoder, and the network that draws."""
