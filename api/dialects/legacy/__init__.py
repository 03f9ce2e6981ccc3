"""Routes of earlier versions of the original server, and of Ollama's and other clients."""
