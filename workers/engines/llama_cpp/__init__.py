"""The GGUF engine: llama.cpp through the low-level binding of llama-cpp-python.

Only ``binding`` imports ``llama_cpp``; other packages import only ``engine``.
"""
