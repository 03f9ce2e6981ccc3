"""Runs llama.cpp's server tests against this server, and reports counts and reasons of failures."""
