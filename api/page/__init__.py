"""/ui: the browser page, plain ES modules without a build step (docs/page.md)."""
