"""Runs the machine code of ATen's normalization kernels on a CPU, thread by thread, without a GPU.

`extract` takes the code from PyTorch's wheel, `sass` reads a listing, `instructions` says what each instruction does,
`machine` runs a launch of them, `arithmetic` holds the numbers, and `kernels` launches them as ATen's host code does.
"""
