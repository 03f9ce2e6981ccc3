"""Only on a CPU: NumPy computes what MLX is slow at there."""
