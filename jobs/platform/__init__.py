"""The facts of the machine and its operating system, behind one small interface."""
