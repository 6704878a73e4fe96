#!/usr/bin/env python3
"""What cuBLAS takes for the products of Llama-3.1-8B's layers in bfloat16, by PyTorch: medians, in graphs of 20 products
of as many matrices as do not fit into a card's second cache. Needs torch and a card."""

import statistics

import torch

ROWS = (1, 8, 16, 32, 64, 512)
SHAPES = {"gate and up": (28672, 4096), "down": (4096, 14336), "q, k and v": (6144, 4096), "o": (4096, 4096)}
PRODUCTS = 20
CACHE = 600e6  # bytes that matrices take together, at least


def microseconds(rows, n_out, n_in):
    n = max(2, min(PRODUCTS, int(CACHE / (2 * n_out * n_in)) + 1))
    weights = [torch.randn(n_out, n_in, device="cuda", dtype=torch.bfloat16) for _ in range(n)]
    x = torch.randn(rows, n_in, device="cuda", dtype=torch.bfloat16)
    for weight in weights:  # chooses kernels
        torch.nn.functional.linear(x, weight)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(PRODUCTS):
            torch.nn.functional.linear(x, weights[i % n])
    times = []
    for _ in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / PRODUCTS)
    return statistics.median(times[1:])


def main():
    print(torch.cuda.get_device_name())
    for rows in ROWS:
        for name, (n_out, n_in) in SHAPES.items():
            took = microseconds(rows, n_out, n_in)
            print(f"{rows:4} rows, {name:12} {took:7.1f} us {2 * rows * n_out * n_in / took / 1e6:6.0f} TFLOP/s")


main()
