"""CPU only: NumPy computes what MLX is slow at there."""
