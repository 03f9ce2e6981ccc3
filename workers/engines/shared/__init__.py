"""Code shared by the MLX and the llama.cpp engine."""
