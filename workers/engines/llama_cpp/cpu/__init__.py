"""CPU only: order and shape of decode passes that suit the CPU's kernels."""
