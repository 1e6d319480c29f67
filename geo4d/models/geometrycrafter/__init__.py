"""GeometryCrafter: consistent point maps of open-world videos by video diffusion, generative and deterministic."""
