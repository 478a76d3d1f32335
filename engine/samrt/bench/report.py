"""A document of ``samrt bench`` as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samrt.bench.scenarios import END_TO_END

__all__ = ["markdown", "markdown_table", "ms", "run_title"]

_CANONICAL = "canonical"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table; the first ``left`` columns are flush left, figures flush right."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(table[0]), f"| {' | '.join(rule)} |", *map(line, table[1:])])


def ms(value: float | None) -> str:
    """A time in ms with three digits that mean something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.0f}"


def run_title(run: Mapping[str, Any]) -> str:
    """What was measured, in words: ``interactive, onnxruntime fp32``."""
    engine = run["engine"]
    form = engine.get("form_effective", _CANONICAL)
    return (
        f"{run['scenario']}, {engine['backend_effective']} {engine['precision_effective']}"
        f"{'' if form == _CANONICAL else f' ({form} form)'}"
    )


def markdown(document: Mapping[str, Any]) -> str:
    """All runs of a document: what was measured on what, latencies, stages, remarks."""
    runs = document["runs"]
    return "\n\n".join([_head(document), _latencies(runs), _stages(runs), _notes(runs)]) + "\n"


def _head(document: Mapping[str, Any]) -> str:
    machine, first = document["host"], document["runs"][0]
    engine, picture = first["engine"], first["picture"]
    cpu = machine["cpu"]
    settings = first["settings"]
    state = first["state"]["before"]
    wide = settings["prompts_per_image"]
    lines = [
        f"- model: {engine['model_id']} ({engine['family']} {engine['variant']})",
        f"- picture: {picture['name']}, {picture['width']} x {picture['height']}; "
        f"{wide} prompt{'s' if wide > 1 else ''} a time, {len(settings['prompts'])} in turn",
        f"- processor: {cpu['model']} ({' '.join(cpu['flags'])}), {engine['threads']} threads on "
        f"CPUs {_listed(first['affinity'])}",
    ]
    if machine["board"]:
        lines.append(f"- board: {machine['board']}")
    if any(machine["gpus"]):
        lines.append(f"- GPU: {', '.join(map(str, machine['gpus']))}")
    lines.append(f"- state: {_state(state)}")
    versions = machine["versions"]
    engines = [run["engine"] for run in document["runs"]]
    used = {e["backend_effective"]: e["backend_version"] for e in engines}
    backends = ", ".join(f"{name} {version}" for name, version in used.items())
    commit = f", commit {machine['commit']}" if machine["commit"] else ""
    lines.append(f"- samrt {document['samrt']}{commit}, Python {versions['python']}, {backends}")
    lines.append(f"- {document['created']}")
    return "\n".join(lines)


def _listed(numbers: Sequence[int] | None) -> str:
    if not numbers:
        return "unknown"
    whole = list(range(numbers[0], numbers[-1] + 1)) == list(numbers)
    return (
        f"{numbers[0]}-{numbers[-1]}"
        if whole and len(numbers) > 2
        else ",".join(str(n) for n in numbers)
    )


def _state(state: Mapping[str, Any]) -> str:
    parts = []
    clocks = state["clocks_mhz"]
    if clocks:
        low, high = clocks["lowest"], clocks["highest"]
        same = high - low < 1.0
        parts.append(f"{high:.0f} MHz" if same else f"{low:.0f} to {high:.0f} MHz")
    parts.append(f"governor {', '.join(state['governors']) or 'unknown'}")
    parts.append(f"power mode {state['power_mode'] or 'unknown'}")
    heat = state["temperatures_c"]
    parts.append(f"{max(heat.values()):.0f} °C" if heat else "temperature unknown")
    if state["load_average"]:
        parts.append(f"load average {state['load_average'][0]:.1f}")
    return ", ".join(parts)


def _latencies(runs: Sequence[Mapping[str, Any]]) -> str:
    late = any(run["stages"][END_TO_END]["deadline"] for run in runs)
    many = any(run["throughput_per_s"] for run in runs)
    gpu = any(run["memory"]["gpu_bytes"] for run in runs)
    head = ["end to end, ms", "runs", "median", "p50", "p90", "p99", "max", "std", "jitter"]
    head += ["late"] * late + ["per second"] * many + ["peak MB"] + ["GPU MB"] * gpu
    head.append("mask IoU")
    rows = []
    for run in runs:
        times, memory = run["stages"][END_TO_END], run["memory"]
        row = [run_title(run), str(times["count"]), ms(times["median"])]
        for name in ("p50", "p90", "p99"):
            found = times["percentiles"][name]
            row.append(ms(found["value"]) if found["value"] else f"needs {found['needs']}")
        row += [ms(times[name]) for name in ("max", "std", "jitter")]
        if late:
            missed = times["deadline"]
            row.append(f"{missed['misses']} ({missed['share']:.1%})" if missed else "-")
        if many:
            row.append(f"{run['throughput_per_s']:.2f}" if run["throughput_per_s"] else "-")
        row.append(_megabytes(memory["peak_rss_bytes"]))
        if gpu:
            row.append(_megabytes(memory["gpu_bytes"]))
        worst = run["answer"].get("mask_iou_worst")
        row.append("reference" if worst is None else f"{worst:.5f}")
        rows.append(row)
    return markdown_table(head, rows)


def _stages(runs: Sequence[Mapping[str, Any]]) -> str:
    """Medians of the stages; the rest is what is between them."""
    names: list[str] = []
    for run in runs:
        names += [n for n in run["stages"] if n not in names and n != END_TO_END]
    rows = []
    for run in runs:
        medians = {name: stage["median"] for name, stage in run["stages"].items()}
        whole = medians.pop(END_TO_END)
        rest = None if run["scenario"] == "offline" else max(0.0, whole - sum(medians.values()))
        rows.append([run_title(run), *(ms(medians.get(name)) for name in names), ms(rest)])
    return markdown_table(["median ms", *names, "rest"], rows)


def _notes(runs: Sequence[Mapping[str, Any]]) -> str:
    """Why each backend was taken, how it was checked, and the remarks."""
    lines = []
    for run in runs:
        engine, answer = run["engine"], run["answer"]
        lines.append(
            f"- {run_title(run)} on {engine['device']}: backend {engine['backend_requested']} "
            f"({engine['backend_reason']}), answers checked against {answer['against']}, warm-up "
            f"{run['warmup']['runs']:.0f} runs, loaded in {ms(run['load_ms'])} ms"
        )
        lines += [f"  - {text}" for text in run["remarks"]]
    return "\n".join(lines)
