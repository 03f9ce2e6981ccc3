"""Only on a CPU: order and shape of passes that suit its kernels."""
