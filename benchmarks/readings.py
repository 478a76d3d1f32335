"""What the rows of `targets.py` read in the results files, and where those files come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

OURS, TORCH, OFFICIAL = (
    "samrt, ONNX Runtime", "segment-anything (torch)", "traced graphs, ONNX Runtime",
)  # fmt: skip
TITLES = {"sam": "SAM ViT-B", "mobile_sam": "MobileSAM"}
MIB = 2**20
Record = dict[str, Any]


class UnmeasuredError(Exception):
    """A file holds no figure for a row; why."""


class RefusedError(Exception):
    """There is an answer, but a wrong one, so there is no time; why."""


@dataclass(frozen=True)
class Reading:
    """A figure that is compared with a target.

    Attributes:
        value: it.
        words: it with the numbers it was made of.
        commits: of all these numbers.
        others: largest share of the processors that other programs took; 0 if unknown.
    """

    value: float
    words: str
    commits: tuple[str | None, ...]
    others: float = 0.0


def peer(record: Record, model: str, row: str, name: str) -> Record:
    """What `peers.py` has found for an engine."""
    found: Record = record["models"][model]["rows"][row]["peers"][name]
    if "reason" in found:
        raise UnmeasuredError(f"{name}: {found['reason']}")
    return found


def best_peer(record: Record, model: str, row: str) -> tuple[str, Record]:
    """The fastest engine that is not ours."""
    peers = record["models"][model]["rows"][row]["peers"].items()
    timed = [(n, f) for n, f in peers if "min_ms" in f and not n.startswith("samrt,")]
    if not timed:
        raise UnmeasuredError("no peer was timed")
    return min(timed, key=lambda item: item[1]["min_ms"])


def disturbance(parts: Iterable[Record]) -> float:
    return max((part.get("others") or 0.0 for part in parts), default=0.0)


def quotient(mine: float, theirs: float, parts: Sequence[Record], words: str) -> Reading:
    """A ratio of times in ms, with both of them; the parts carry commits."""
    commits = tuple(part.get("commit") for part in parts)
    told = f"{mine / theirs:.2f} ({in_ms(mine)} for {in_ms(theirs)}{words})"
    return Reading(mine / theirs, told, commits, disturbance(parts))


def in_ms(value: float) -> str:
    """Milliseconds, from 2000 on in seconds."""
    if value >= 2000.0:
        return f"{value / 1000:.2f} s"
    return f"{value:.0f} ms" if value >= 100.0 else f"{value:.1f} ms"


def against_best(model: str) -> Callable[[Record], list[Reading]]:
    def read(record: Record) -> list[Reading]:
        mine = peer(record, model, "encode", OURS)
        name, theirs = best_peer(record, model, "encode")
        words = f", {name.removeprefix('traced graphs, ')}"
        return [quotient(mine["min_ms"], theirs["min_ms"], (mine, theirs), words)]

    return read


def against_peer(
    row: str, name: str, models: Sequence[str] = ("sam", "mobile_sam")
) -> Callable[[Record], list[Reading]]:
    """Ours against one peer, for each of the models."""

    def read(record: Record) -> list[Reading]:
        pairs = [(m, peer(record, m, row, OURS), peer(record, m, row, name)) for m in models]
        return [
            quotient(mine["min_ms"], theirs["min_ms"], (mine, theirs), f", {TITLES[model]}")
            for model, mine, theirs in pairs
        ]

    return read


def of_sgemm(record: Record) -> list[Reading]:
    mine = peer(record, "mobile_sam", "encode", OURS)
    rate = record["models"]["mobile_sam"]["rows"]["encode"]["sgemm_gflops"]
    words = f"{mine['of_sgemm']:.0%} of {rate:.0f} GFLOP/s"
    return [Reading(mine["of_sgemm"], words, (mine.get("commit"),), disturbance([mine]))]


def encoder_memory(record: Record) -> list[Reading]:
    mine = peer(record, "sam", "encode", OURS)
    _, theirs = best_peer(record, "sam", "encode")
    own, other = (each["peak_mb"] * MIB / 1e9 for each in (mine, theirs))
    words = f"{own:.2f} GB (best peer's {other:.2f})"
    return [Reading(own, words, (mine.get("commit"),))]


def sixteen_boxes(record: Record) -> list[Reading]:
    found = []
    for model in ("sam", "mobile_sam"):
        all_, one = (peer(record, model, f"decode {n}", OURS) for n in ("16 boxes", "1 box"))
        reading = quotient(all_["min_ms"], 16 * one["min_ms"], (all_, one), "")
        words = f"{reading.value:.2f} ({in_ms(all_['min_ms'])} for 16 × {in_ms(one['min_ms'])}"
        told = f"{words}, {TITLES[model]})"
        found.append(Reading(reading.value, told, reading.commits, reading.others))
    return found


def int8(model: str) -> Callable[[Record], list[Reading]]:
    def read(record: Record) -> list[Reading]:
        row = record["models"][model]
        if "refused" in row:
            raise RefusedError(f"refused by the gate: {row['refused'][:200]}")
        if "reason" in row:
            raise UnmeasuredError(row["reason"])
        mine, plain = row["int8"], row["fp32"]
        words = f"; gate: mask IoU {mine['mask_iou_mean']:.4f}, worst {mine['mask_iou_worst']:.4f}"
        reading = quotient(mine["wall_min_ms"], plain["wall_min_ms"], (mine, plain), words)
        commits = (row["commit"], row["bundle"]["commit"])
        return [Reading(reading.value, reading.words, commits, reading.others)]

    return read


def tiny_warm(record: Record) -> list[Reading]:
    stages = record["stages"]
    whole = stages["file_to_mask"]["median_ms"]
    parts = ", ".join(
        f"{word} {in_ms(stages[name]['median_ms'])}"
        for name, word in (("encode", "encoder"), ("box_to_mask", "box to mask"))
    )
    return [Reading(whole, f"{in_ms(whole)} ({parts})", (record["commit"],))]


def tiny_cold(record: Record) -> list[Reading]:
    wall = record["cold_start"]["median_ms"] / 1e3
    return [Reading(wall, f"{wall:.2f} s", (record["commit"],))]


def tiny_memory(record: Record) -> list[Reading]:
    peak = record["cold_start"]["peak_rss_mb"] * MIB / 1e6
    return [Reading(peak, f"{peak:.0f} MB", (record["commit"],))]


def everything(record: Record) -> list[Reading]:
    mine, theirs = record["samrt"], record["segment_anything"]
    parts = [{**part, "commit": record["commit"]} for part in (mine, theirs)]
    words = f", {record['points']} points, {mine['masks']} masks"
    return [quotient(mine["wall_s"] * 1e3, theirs["wall_s"] * 1e3, parts, words)]


@dataclass
class Source:
    """A results file: the machine it is from, commits, threads, load average before the run."""

    name: str
    record: Record
    machine: str = ""
    versions: str = ""
    commits: list[str | None] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    load: float | None = None

    def __post_init__(self) -> None:
        runs = self._runs()
        self.machine = " and ".join(dict.fromkeys(machine_of(e) for e, *_ in runs))
        self.versions = " and ".join(dict.fromkeys(versions_of(e) for e, *_ in runs))
        self.commits = list(dict.fromkeys(commit for _, commit, *_ in runs))
        self.threads = sorted({threads for *_, threads, _ in runs})
        loads = [load[0] for *_, load in runs if load]
        self.load = max(loads) if loads else None

    def _runs(self) -> list[tuple[Any, Any, Any, Any]]:
        """Environment, commit, threads and load average of each figure."""
        record = self.record
        if "models" not in record:
            runs: list[Record] = [record]
        elif "host" not in record:
            runs = list(record["models"].values())
        else:
            return [
                (record["host"], found.get("commit"), row["threads"], row["state"]["load_average"])
                for model in record["models"].values()
                for row in model["rows"].values()
                for found in row["peers"].values()
            ]
        return [
            (run["environment"], run["commit"], run["threads"], run.get("load_average"))
            for run in runs
        ]


def machine_of(environment: Record) -> str:
    cpu = environment["cpu"]
    return f"{cpu['model']} ({' '.join(cpu['flags'])}), {environment['cpus_usable']} CPUs"


def versions_of(environment: Record) -> str:
    words = {
        "samrt": "samrt", "python": "Python", "numpy": "NumPy", "onnxruntime": "ONNX Runtime",
        "openvino": "OpenVINO", "torch": "PyTorch",
    }  # fmt: skip
    found = environment["versions"]
    return ", ".join(f"{words[key]} {found[key]}" for key in words if found.get(key))


def about(sources: Iterable[Source]) -> list[str]:
    """One line for all files of the same machine, versions, commits and threads."""
    groups: dict[str, list[str]] = {}
    for source in sources:
        threads = " and ".join(map(str, source.threads))
        commits = " and ".join(map(str, source.commits))
        key = f"{source.machine}, {threads} threads; {source.versions}; commit {commits}"
        load = "not recorded" if source.load is None else f"{source.load:.1f}"
        groups.setdefault(key, []).append(f"`{source.name}` (load average before it: {load})")
    return [f"- {', '.join(files)}: {key}" for key, files in groups.items()]
