"""The process that downloads one model of the hub into the models folder."""
