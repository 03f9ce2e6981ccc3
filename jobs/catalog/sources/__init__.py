"""Where models lie: the models folder, and the stores of other programs, which are only read."""
