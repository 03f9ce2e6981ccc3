"""Memory of models: estimates before a load, the machine's budget, what was measured."""
