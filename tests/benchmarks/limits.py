"""How far a recipe's numbers may be from diffusers'; see `benchmarks/parity.py` for the names."""

LIMITS = {
    "loss_abs": 2e-6,
    "noise_pred_max_abs": 5e-6,
    "grad_rel_l2_worst": 1e-4,
    "losses_after_steps_max_abs": 2e-6,
    "t5_max_abs": 2e-5,
    "clip_max_abs": 5e-6,
    "vae_moments_max_abs": 5e-6,
}
