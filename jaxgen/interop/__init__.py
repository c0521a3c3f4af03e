"""Published weights: their files read, their names translated, a denoiser ready to be called."""
