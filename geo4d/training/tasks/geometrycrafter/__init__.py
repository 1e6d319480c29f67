"""GeometryCrafter: the point-map VAE and the diffusion network that is conditioned by a per-frame prior."""
