"""The kernel in a box: QEMU, a stock kernel, and the kernel engine inside."""
