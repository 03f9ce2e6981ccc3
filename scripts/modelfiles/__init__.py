"""Writes qwen3-shaped weights as an MLX folder and as a GGUF file, and LoRA adapters for both."""
