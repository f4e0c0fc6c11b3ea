"""mdpipe: masked diffusion models of text and images, from raw data to versioned tables."""
