#pragma once

#include <string>
#include <vector>

#include "optiq/kernels/cuda/card.h"
#include "optiq/kernels/device.h"

namespace optiq::kernels {

/**
 * An NVIDIA card: own kernels, compiled into this library, launched through the
 * driver in order on one stream. Operations return before they have run, and so
 * does `finish`; `to_host` and reductions wait, and what went wrong shows
 * there.
 *
 * Activations are float32 between operations. Products run on tensor cores with
 * activations as float16 digits, one in Compute::Fast (errors of 2^-12) and two
 * in Compute::Exact (2^-24), sums in float32; Compute::Int8 is refused.
 * Attention multiplies queries and weights of attention as two digits or, in
 * Compute::Exact, three; delta nets and norms are float32. Rows are independent
 * bit for bit up to 64 rows, and from 65 on. Gradients are float32, their
 * products of floats as two of TF32 each.
 *
 * One per card and process. Throws NotFound without a driver or the card,
 * Unsupported where the card, the driver or this build does not do.
 */
Device& cuda_device(int index);

/** Why there is no card to use; empty where cuda_device(0) works. */
std::string why_no_cuda();

/** The cards of this machine. Throws as cuda_device. */
std::vector<cuda::CardInfo> cuda_cards();

/** Bytes per second that a kernel reads which does nothing else. */
double measure_cuda_read_bandwidth(int index);

} // namespace optiq::kernels
