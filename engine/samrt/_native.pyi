from numpy import bool_, float16, float32, float64, int32, int64, uint8, uint32
from numpy.typing import NDArray

def resize(
    image: NDArray[uint8], size: tuple[int, int], interpolation: str, rounding: str, threads: int
) -> NDArray[uint8]: ...
def preprocess(
    image: NDArray[uint8],
    *,
    out_size: tuple[int, int],
    resized: tuple[int, int],
    interpolation: str,
    rounding: str,
    via: list[tuple[int, int]],
    divisor: float,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    scale: float,
    min_max: bool,
    pad_value: float,
    pad_before: bool,
    bgr: bool,
    out_dtype: str,
    threads: int,
) -> NDArray[float32] | NDArray[float16]: ...
def preprocess_window(
    image: object,
    *,
    window: tuple[float, float],
    out_size: tuple[int, int],
    resized: tuple[int, int],
    interpolation: str,
    rounding: str,
    via: list[tuple[int, int]],
    divisor: float,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    scale: float,
    min_max: bool,
    pad_value: float,
    pad_before: bool,
    out_dtype: str,
    threads: int,
) -> NDArray[float32] | NDArray[float16]: ...
def window_to_uint8(image: object, low: float, high: float, threads: int) -> NDArray[uint8]: ...
def upscale_logits(
    logits: NDArray[float32],
    *,
    frame: tuple[int, int],
    crop: tuple[int, int],
    out: tuple[int, int],
    interpolation: str,
    threads: int,
) -> NDArray[float32]: ...
def masks_from_logits(
    logits: NDArray[float32],
    *,
    frame: tuple[int, int],
    crop: tuple[int, int],
    out: tuple[int, int],
    interpolation: str,
    threshold: float,
    probability: bool,
    threads: int,
) -> NDArray[bool_]: ...
def stability(logits: NDArray[float32], threshold: float, offset: float) -> NDArray[float32]: ...
def mask_runs(
    logits: NDArray[float32],
    *,
    frame: tuple[int, int],
    crop: tuple[int, int],
    out: tuple[int, int],
    interpolation: str,
    threshold: float,
    inner: float,
    outer: float,
    probability: bool,
    min_stability: float,
    threads: int,
) -> tuple[NDArray[float32], NDArray[int64], NDArray[int64], list[NDArray[uint32] | None]]: ...
def mask_stats(mask: NDArray[bool_]) -> tuple[NDArray[int64], NDArray[int64]]: ...
def rle_encode(mask: NDArray[bool_]) -> NDArray[uint32]: ...
def rle_decode(counts: NDArray[uint32], size: tuple[int, int]) -> NDArray[bool_]: ...
def rle_to_string(counts: NDArray[uint32]) -> bytes: ...
def rle_from_string(text: bytes) -> NDArray[uint32]: ...
def connected_components(mask: NDArray[bool_], connectivity: int) -> tuple[NDArray[int32], int]: ...
def remove_small_regions(
    mask: NDArray[bool_], min_area: float, mode: str
) -> tuple[NDArray[bool_], bool]: ...
def mask_polygons(mask: NDArray[bool_]) -> list[list[NDArray[float64]]]: ...
def place_runs(
    counts: NDArray[uint32], size: tuple[int, int], at: tuple[int, int], whole: tuple[int, int]
) -> NDArray[uint32]: ...
def box_nms(
    boxes: NDArray[float32], scores: NDArray[float32], threshold: float
) -> NDArray[int64]: ...
def instruction_set() -> str: ...
def select_instruction_set(name: str) -> str: ...
def release_memory() -> None: ...
def kept_memory() -> int: ...
