/* What a variant of a kernel is given and what it must do, in words for those who write one. */
#ifndef BENCH_KERNEL_INTERFACE_H
#define BENCH_KERNEL_INTERFACE_H

/* Prints it; returns the exit status: 1 after a message where there is no such kernel. */
int kernel_interface_print(const char *kernel);

#endif
