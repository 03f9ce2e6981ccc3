"""KV states: copies, the prompt cache in memory, its spill to disk, quantization."""
