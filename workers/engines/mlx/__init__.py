"""The MLX engine. Nothing outside this package imports ``mlx``, ``mlx_lm`` or ``transformers``."""
