"""API keys: who calls, what the key allows, what it has used."""
