"""Configure the process that runs networks: its device, the same bytes in every run, and fast allocation."""

import ctypes
import os

import torch

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1
"""glibc's mallopt parameters: the number of blocks allocated with mmap, and the free memory above which it is
returned to the system."""

ONEDNN_IS_FASTER = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
"""True if float32 matrix products are left to oneDNN, in place of MKL, which has kernels for AVX2 only on AMD's
processors: on Zen 5 they take twice the time of oneDNN's for AVX-512.

torch chooses oneDNN for float32 only where it may round to bfloat16, and only on processors that have bfloat16. oneDNN
only rounds on those with AMX, which keep MKL: products are in float32 on every processor."""
ONEDNN_KERNELS = 256
"""oneDNN compiles a kernel for each shape of a product, and the head has another number of rows at each step. The least
recently used one of more than these is forgotten: 1,024, the default, take 0.7 GiB."""


def compute_device() -> torch.device:
    """Return the GPU if torch sees one, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configure_runtime(threads: int) -> None:
    """Make results deterministic and keep freed memory in the process.

    Call it before the first computation, on the CPU as well as on a GPU.
    """
    set_determinism(threads)
    use_onednn_matmul()
    disable_malloc_trim()


def set_determinism(threads: int) -> None:
    """Fix everything that decides the order of sums: the number of CPU threads and the GPU's kernels.

    It applies to the whole process. Call it before the first use of a GPU, because cuBLAS reads its setting once, and
    before the first computation on the CPU, because its threads inherit how this one treats denormal numbers.

    Denormal numbers (below 1.2e-38) are flushed to 0. Attention produces them: where scores differ by more than 87, as
    at a high learning rate, the smallest probabilities and their gradients are denormal, and some processors take over
    a hundred cycles for each. One training took 2.6 times as long because of them.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)
    # Like use_deterministic_algorithms(True), but without importing the compiler, which only needs to know if used.
    torch.set_deterministic_debug_mode("error")
    # That mode also fills every new tensor with NaN, which guards against reading unset memory but costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def use_onednn_matmul() -> None:
    """Compute float32 matrix products on the CPU by oneDNN where it is the faster one, for the whole process."""
    if ONEDNN_IS_FASTER:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(ONEDNN_KERNELS))
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]


def disable_malloc_trim() -> None:
    """Make malloc reuse freed memory instead of returning it to the system, for the whole process.

    Otherwise the system has to find and clear new pages for every large tensor, which takes a tenth of a training step
    or more. In return, the process keeps its peak memory until it ends. Without glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl and macOS have no mallopt, Windows has no such library.
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
