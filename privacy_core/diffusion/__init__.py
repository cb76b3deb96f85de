"""The code-space diffusion model: code, denoiser, sampler, training, fitting, pipeline."""
