"""What is only about our own emoji models: emoji-sd, a small pipeline shaped like Stable Diffusion."""
