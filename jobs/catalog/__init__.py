"""Models and adapters on disk: names, formats, facts from their files."""
