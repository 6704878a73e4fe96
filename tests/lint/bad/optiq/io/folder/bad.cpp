#include "optiq/kernels/kernels.h"
