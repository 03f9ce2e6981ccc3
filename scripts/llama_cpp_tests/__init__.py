"""llama.cpp's server tests against this server: run, counted, and each failure explained."""
