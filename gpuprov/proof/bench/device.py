"""What every measurement needs of torch: modes, time, data that every device makes alike, checksums of whole results.

The same code runs on "cuda:N" and on "cpu" (smaller sizes). What was measured on a CPU is called cpu.<name>: it never
poses as a GPU's.
"""

from __future__ import annotations

import contextlib
import time

import torch

from gpuprov.proof.bench.numbers import repeats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from gpuprov.proof.parts import Context

    Work = Callable[[], Any]

GIB = 1 << 30
MIB = 1 << 20
#: Part of `bits_of`: changes whenever `noise` gives other numbers.
DATA = "noise 1"
_MASK = 0xFFFFFFFF


def on_gpu(device: str) -> bool:
    """Say whether *device* is a GPU. Pure."""
    return device.startswith("cuda")


def named(device: str, name: str) -> str:
    """Return *name* as it is called on *device*. Pure."""
    return name if on_gpu(device) else "cpu." + name


@contextlib.contextmanager
def prepared(device: str) -> Iterator[None]:
    """Make float32 float32 and sums of half precision float32, then restore what the process had.

    Deterministic mode is off meanwhile: it fills every new tensor, and what is measured here is deterministic
    without it (cuBLAS by CUBLAS_WORKSPACE_CONFIG, which worker.py sets).
    """
    matmul = torch.backends.cuda.matmul
    flags = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
    before = {name: getattr(matmul, name) for name in flags}
    precision, mode = torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    torch.set_float32_matmul_precision("highest")
    for name in flags:
        setattr(matmul, name, False)
    try:
        with torch.inference_mode():
            if on_gpu(device):
                torch.cuda.set_device(device)
            yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)
        torch.set_float32_matmul_precision(precision)
        torch.set_deterministic_debug_mode(mode)
        if on_gpu(device):
            torch.cuda.empty_cache()


def blamed(device: str, reason: str) -> str:
    """Return the action for a wrong result: a GPU's is to isolate it, unless our own canary says *reason*. Pure."""
    return "isolate" if on_gpu(device) and not reason.startswith("canary") else "none"


def wait(device: str) -> None:
    """Wait until *device* has done all that it was given."""
    if on_gpu(device):
        torch.cuda.synchronize(device)


def timed(device: str, work: Work, calls: int = 1) -> float:
    """Return the seconds that one call of *work* takes: by the GPU's own events, on a CPU by the clock."""
    if not on_gpu(device):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - start) / calls
    with torch.cuda.device(device):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(calls):
            work()
        last.record()
        last.synchronize()
    return float(first.elapsed_time(last)) / 1e3 / calls


def sampled(device: str, work: Work, budget_s: float, after: Callable[[int], None] | None = None) -> list[float]:
    """Return the seconds of one call of *work*, measured at least five times after a warm-up.

    *after* is called with the sample's number after each one, outside of the time.
    """
    timed(device, work)
    calls, count = repeats(max(timed(device, work), 1e-7), budget_s)
    if on_gpu(device):  # clocks rise with load: a tenth of the budget goes by unmeasured
        timed(device, work, max(1, calls * count // 10))
    seconds = []
    for number in range(count):
        seconds.append(timed(device, work, calls))
        if after is not None:
            after(number)
    return seconds


def free_bytes(device: str, cpu_bytes: int) -> int:
    """Return how much memory is free on *device*; on a CPU that is *cpu_bytes*, which measurements there may use."""
    if not on_gpu(device):
        return cpu_bytes
    torch.cuda.empty_cache()  # what torch keeps for later is free, too
    return int(torch.cuda.mem_get_info(device)[0])


def pinned(size: int) -> Any:
    """Return *size* bytes of the host's memory, as int64 words, that a GPU reads and writes by itself."""
    return torch.zeros(size // 8, dtype=torch.int64, pin_memory=True)


def room(device: str, needed: int) -> str:
    """Return why *needed* bytes and what libraries take cannot be had on *device*, "" when they can.

    Asked before libraries start: for want of memory some of them report an error that looks like a broken device.
    """
    free = free_bytes(device, 1 << 62)
    if free >= needed + GIB // 2:
        return ""
    return f"only {free / GIB:.1f} GiB of memory are free, and this needs {(needed + GIB // 2) / GIB:.1f} GiB"


def scrambled(numbers: Any, seed: int) -> Any:
    """Return 32 random bits (in int64) for each of *numbers* (int64 below 2**32), in place. The same on every device.

    Integer arithmetic below 2**63, so it neither rounds nor overflows.
    """
    numbers += seed * 0x1003F & _MASK
    numbers &= _MASK
    for shift, factor in ((16, 0x7FEB352D), (15, 0x21F0AAAD)):
        numbers ^= numbers >> shift
        numbers *= factor
        numbers &= _MASK
    numbers ^= numbers >> 15
    return numbers


def noise(rows: int, columns: int, form: str, device: str, seed: int, salt: int) -> Any:
    """Return a matrix in *form* ("bf16") with random signs, mantissas and binades, the same on every device.

    Every number is exact in its form. Made in pieces, so that it needs little more memory than it returns.
    """
    matrix = torch.empty((rows, columns), dtype=DTYPES[form], device=device)
    step = max(1, (8 * MIB) // columns)
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        index = torch.arange(start * columns, stop * columns, dtype=torch.int64, device=device)
        values = _numbers(index, form, 2 * (seed * 1000003 + salt))
        matrix[start:stop].copy_(values.reshape(stop - start, columns))
    return matrix


def _numbers(index: Any, form: str, seed: int) -> Any:
    bits = scrambled(index.clone(), seed)
    if form == "int8":
        return bits % 255 - 127
    mantissa, binades, lowest = _SHAPES[form]
    wide = torch.float64 if mantissa > 23 else torch.float32
    scales = [2.0 ** (lowest + i - mantissa) for i in range(binades)]
    scale = torch.tensor(scales, dtype=wide, device=index.device)[(bits >> 1) % binades]
    fraction = scrambled(index, seed + 1)
    if mantissa > 32:
        more = mantissa - 32
        fraction = (fraction << more) + (bits & ((1 << more) - 1))
    else:
        fraction >>= 32 - mantissa
    return ((fraction + (1 << mantissa)) * (1 - 2 * (bits & 1))).to(wide) * scale


DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}
#: Stored bits of the mantissa, how many binades, exponent of the lowest one: normal numbers of the form.
_SHAPES = {
    "fp64": (52, 16, -14),
    "fp32": (23, 16, -14),
    "tf32": (10, 16, -14),
    "bf16": (7, 16, -14),
    "fp16": (10, 16, -14),
    "fp8": (3, 8, -6),
}
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(matrix: Any) -> str:
    """Return 128 bits, as hex, that depend on every bit of a contiguous *matrix* and on where it is.

    Its bits are summed as integers, which no order of additions changes: once with an odd weight for each row,
    once with one for each column.
    """
    integers = matrix.view(INTEGERS[matrix.element_size()])
    rows, columns = integers.shape
    device = str(integers.device)
    by_column = torch.zeros(columns, dtype=torch.int64, device=device)
    by_row = torch.empty(rows, dtype=torch.int64, device=device)
    step = max(1, (16 * MIB) // columns)
    for start in range(0, rows, step):
        piece = integers[start : start + step].to(torch.int64)
        by_row[start : start + step] = piece.sum(dim=1)
        by_column += piece.sum(dim=0)
    sums = [(line * _weights(len(line), device)).sum() for line in (by_row, by_column)]
    return "".join(f"{int(total) & 0xFFFFFFFFFFFFFFFF:016x}" for total in sums)


def _weights(count: int, device: str) -> Any:
    return scrambled(torch.arange(count, dtype=torch.int64, device=device), 99) * 2 + 1


def computed_by(device: str) -> str:
    """Return what has to be equal for two devices to give the same bits: model and software."""
    if on_gpu(device):
        it = torch.cuda.get_device_properties(device)
        where = f"{it.name}, compute capability {it.major}.{it.minor}, {it.multi_processor_count} SMs"
        return f"{where}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    kind = torch.backends.cpu.get_cpu_capability()
    return f"CPU {_cpu_model()}, {kind}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def _cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        for line in f:
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "CPU part"):
                return value.strip()
    return "of unknown model"


def identity(device: str) -> dict[str, Any]:
    """Return the data that every check of *device* carries: uuid, for a GPU."""
    if not on_gpu(device):
        return {}
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid is None:
        return {}
    return {"uuid": str(uuid) if str(uuid).startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"}


def uses(context: Context, quick_s: float, weekly_s: float, burnin_s: float) -> float:
    """Return how long a measurement may take in this run's tier; a CPU, which is no accelerator, gets 0.1 s."""
    if not on_gpu(context.device):
        return 0.1
    return burnin_s if context.deep("burnin") else weekly_s if context.deep("weekly") else quick_s
