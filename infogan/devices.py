"""Which device a run uses, and in which precision it computes there.

A GPU that is present but cannot be used is an error: nobody should train for days on a CPU by accident. And
`auto` chooses bfloat16 only where the hardware computes in it; emulated, it costs time and accuracy at once.
"""

import ctypes
import errno
import os
import platform
import re
import warnings
from pathlib import Path

import torch

from shards.errors import UserError

# Instructions that multiply bfloat16 without widening it first: Intel and AMD, Intel's tiles, Arm.
CPU_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

# glibc's malloc.h; with its own rule, the trim threshold follows at twice the mmap threshold, which stops at 32 MiB
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20

# Ampere is the first generation whose tensor cores take bfloat16; older ones emulate it.
CUDA_BF16_CAPABILITY = (8, 0)


def resolve_device(name: str = "auto") -> torch.device:
    """The device that a name stands for.

    `auto` is the current GPU where CUDA works and the CPU where there is no GPU at all.

    Args:
        name: auto, cpu, cuda or cuda:N.

    Raises:
        UserError: no such name, no such GPU, or a GPU that is there but cannot be used.
    """
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", name)
    if match is None:
        raise UserError(f"device={name}: no such device; it must be auto, cpu, cuda or cuda:N")
    if _cuda_works():
        index = None if match.group(1) is None else int(match.group(1))
        count = torch.cuda.device_count()
        if index is not None and index >= count:
            raise UserError(f"device={name}: the usable GPUs are cuda:0 to cuda:{count - 1}")
        return torch.device("cuda") if index is None else torch.device("cuda", index)
    reason = unusable_gpu()
    if reason is not None:
        raise UserError(f"device={name}: a GPU is there but cannot be used: {reason}; or ask for device=cpu")
    if name != "auto":
        raise UserError(f"device={name}: this machine has no NVIDIA GPU; ask for device=cpu or device=auto")
    return torch.device("cpu")


def native_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself: a GPU by its capability, a CPU by its flags."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= CUDA_BF16_CAPABILITY
    return not CPU_BF16_FLAGS.isdisjoint(cpu_flags())


def auto_precision(device: torch.device) -> str:
    """What `precision: auto` means on a device: "bf16" where that is native, else "fp32"."""
    return "bf16" if native_bf16(device) else "fp32"


def sent(tensor: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of the host on a device. Only from pinned memory is a GPU sent it while the host goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, dtype, non_blocking=True)


def keep_freed_memory(keep: bool = True) -> None:
    """Let glibc's allocator keep what an update frees for the next one.

    Otherwise the system takes the memory back and hands it out again page by page, thousands of page faults an update.
    `False` goes back to where glibc's own rule settles for a program with blocks of this size. Other allocators are
    left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1 if keep else 2 * LARGEST_MMAP_THRESHOLD)


def unusable_gpu() -> str | None:
    """Why this machine's GPU cannot be used, with the remedy; None where it can be, or where there is none.

    A GPU counts as there when its device node exists and is not withheld from this process: a batch system
    denies a job the GPUs that it did not ask for, and CUDA_VISIBLE_DEVICES= hides them on purpose.
    """
    if not _gpu_is_there() or _cuda_works():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a CPU build; install a CUDA build of torch"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
    else:
        reason = "CUDA reports no device"
    driver = nvidia_driver() or "unknown"
    return (
        f"{reason} (driver {driver}, torch built for CUDA {torch.version.cuda}); update the driver, "
        "or install a build of torch for an older CUDA"
    )


def nvidia_driver() -> str | None:
    """The version of the NVIDIA kernel driver, such as "535.104.05"; None where none is loaded."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"\b\d{3,}\.\d+(?:\.\d+)?\b", text)
    return match.group() if match else None


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1) if match else platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """The instruction sets that the kernel lists for the first CPU; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(match.group(1).split()) if match else frozenset()


def _cuda_works() -> bool:
    with warnings.catch_warnings():
        # torch warns about an old driver here; `unusable_gpu` says it as an error.
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def _gpu_is_there() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "unset").strip() in ("", "-1", "NoDevFiles"):
        return False
    return any(_may_open(node) for node in Path("/dev").glob("nvidia[0-9]*"))


def _may_open(node: Path) -> bool:
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        # EPERM is how a control group withholds a device; any other failure is a GPU in trouble.
        return error.errno != errno.EPERM
    return True
