"""The Markdown page of the GPU check, with its verdict."""

from benchmarks.markdown import model_section, number, paragraph, percent, table, versions_sentence
from benchmarks.measuring import BATCH, Rates, from_json
from benchmarks.results import CONVENTIONAL, ModelResult, Row

DONE, FAILED, SKIPPED, TIMED_OUT, NOT_DONE = "done", "failed", "skipped", "took too long", "not done"
WAYS = {"packed": "packed", "interrupted": "interrupted and resumed", "alone": "alone"}  # to run a launch
SHOWN = 16  # longest kernels
PARTS = {  # of a step, by words in the names of kernels; the first match counts
    "weight gradients": ("wgrad", "backward_weight", "weight_gradient"),
    "data gradients": ("dgrad", "backward_data"),
    "convolutions": ("fprop", "conv", "cudnn_infer"),
    "batch norm": ("batch_norm", "batchnorm", "bn_"),
    "matrix products": ("gemm", "gemv", "cutlass", "splitk"),
    "optimizer": ("multi_tensor_apply", "fused_sgd"),
    "copies and filling": ("memset", "memcpy", "fillfunctor", "copy"),
}
LAYOUT = ("converttensor", "nchwtonhwc", "nhwctonchw")  # checked first, because they contain a convolution's words
OTHERS = "others, mostly elementwise"


def part_of(kernel: str) -> str:
    """Return the part of a step that a kernel belongs to, by its name."""
    name = kernel.lower()
    if any(word in name for word in LAYOUT):
        return "layout and precision of tensors"
    return next((part for part, words in PARTS.items() if any(word in name for word in words)), OTHERS)


def differences(results: dict) -> list[str]:
    """List the runs of the packed launch whose final weights differed when interrupted or alone."""
    packed = _values(results, "launch-packed")
    found = []
    for way, said in WAYS.items():
        other = _values(results, f"launch-{way}")
        if packed and other:
            found += [f"{run}: {said}, its final weights differ from an uninterrupted pack's"
                      for run, digest in packed["digests"].items() if other["digests"].get(run) != digest]  # fmt: skip
    return found


def problems(results: dict) -> list[str]:
    """List everything that went wrong."""
    bad = [entry for entry in results["stages"].values() if entry["status"] in (FAILED, TIMED_OUT)]
    return [f"{entry['title']}: {entry['status']}" for entry in bad] + differences(results)


def page(results: dict) -> str:
    """Render the page."""
    entries, about = results["stages"], results["about"]
    rows = [(e["title"], _status(e), number(e["seconds"], 1), number(e["limit"])) for e in entries.values()]
    parts = [f"# GPU check on {about['hardware']['device']}\n", _verdict(results)]
    parts.append(f"## What was done\n\n{table(('', 'outcome', 'seconds', 'at most'), rows)}")
    parts += [
        f"### {e['title']}: {e['status']}\n\n```text\n{e['words'].replace('```', '')}\n```\n"
        for e in entries.values()
        if e["words"] and e["status"] != SKIPPED
    ]
    if kernels := _values(results, "kernels"):
        parts.append(_kernels(kernels))
    parts += [model_section(_model_result(e["values"]["result"])) for e in _done(results, "rates-")]
    if fused := _values(results, "fused"):
        text = fused["text"].replace("## ", "### ")
        parts.append(f"## A step with the library's kernels and with the fused ones\n\n{text}")
    if moments := [entry["values"] for entry in _done(results, "memory-")]:
        parts.append(_memory(moments))
    if ways := {way: found for way in WAYS if (found := _values(results, f"launch-{way}"))}:
        parts.append(_launches(ways))
    parts.append(_explanation(results))
    return "\n".join(parts)


def _values(results: dict, name: str) -> dict | None:
    return results["stages"].get(name, {}).get("values")


def _done(results: dict, start: str) -> list[dict]:
    """Return the stages with values whose names begin with ``start``."""
    return [entry for name, entry in results["stages"].items() if name.startswith(start) and entry["values"]]


def _status(entry: dict) -> str:
    return f"skipped: {entry['words']}" if entry["status"] == SKIPPED else entry["status"]


def _verdict(results: dict) -> str:
    """Render the verdict as a list: safe to use or not, the best width, and anything missing."""
    entries, no_gpu = results["stages"].values(), results["about"]["no_gpu"]
    lines = [_safe(results), _best_widths(results)]
    if failed := [entry["title"] for entry in entries if entry["status"] in (FAILED, TIMED_OUT)]:
        lines.append(f"**Failed or took too long:** {'; '.join(failed)}. Their last output is below.")
    if missing := [entry["title"] for entry in entries if entry["status"] == NOT_DONE]:
        lines.append(f"**Not done in the time:** {'; '.join(missing)}.")
    if skipped := [entry["title"] for entry in entries if entry["status"] == SKIPPED]:
        reason = "" if no_gpu is None else f" (no GPU: {no_gpu})"
        lines.append(f"**Skipped**{reason}: {'; '.join(skipped)}.")
    return "".join(f"- {line}\n" for line in lines)


def _safe(results: dict) -> str:
    deciding = [entry for entry in results["stages"].values() if entry["decides"]]
    wrong = [entry["title"] + ": failed" for entry in deciding if entry["status"] == FAILED] + differences(results)
    if wrong:
        return f"**Safe to use: no**, because of: {'; '.join(wrong)}."
    open_ = [f"{entry['title']} ({_status(entry)})" for entry in deciding if entry["status"] != DONE]
    if results["about"]["no_gpu"] is not None:
        return f"**Safe to use: unknown**, because there is no GPU ({results['about']['no_gpu']})."
    if open_:
        return f"**Safe to use: unknown**, because these stages did not finish: {'; '.join(open_)}."
    tests = sum(entry["values"]["passed"] for entry in _done(results, "test-"))
    runs = len(_values(results, "launch-packed")["digests"])
    reason = f"the {tests} decisive tests passed, and {runs} packed runs ended with bit for bit the same weights"
    return f"**Safe to use: yes**, because {reason} when interrupted and resumed and when run alone."


def _best_widths(results: dict) -> str:
    """Describe the fastest width of each model."""
    said = []
    for result in (_model_result(entry["values"]["result"]) for entry in _done(results, "rates-")):
        rows = [row for row in result.rows if row.name != CONVENTIONAL and row.rates]
        if len(rows) > 1:
            best = max(rows, key=lambda row: row.rates.median)
            rate = f"{best.rates.median:,.0f} images/s, {best.ratio:.2f} times the conventional loop"
            said.append(f"{best.runs} for {result.model} ({rate})")
    return f"**Best packing width:** {'; '.join(said)}." if said else "**Best packing width:** unknown."


def _model_result(values: dict) -> ModelResult:
    """Rebuild a model's throughput without its floor, for which the page has no columns."""
    rows = [Row(**row | {"rates": row["rates"] and from_json(Rates, row["rates"])}) for row in values["rows"]]
    return ModelResult(values["model"], tuple(rows))


def _kernels(values: dict) -> str:
    kernels = values["kernels"]
    count, total = sum(kernel["count"] for kernel in kernels), sum(kernel["us"] for kernel in kernels)
    parts = {}
    for kernel in kernels:
        so_far = parts.get(part_of(kernel["name"]), (0, 0))
        parts[part_of(kernel["name"])] = so_far[0] + kernel["count"], so_far[1] + kernel["us"]
    rows = [(part, number(many, 1), number(us, 1), percent(us / total if total else None))
            for part, (many, us) in sorted(parts.items(), key=lambda item: -item[1][1])]  # fmt: skip
    longest = [
        (
            number(kernel["count"], 1),
            number(kernel["us"] / kernel["count"], 2),
            number(kernel["us"], 1),
            f"`{kernel['name'][:90].replace('|', '/').replace('`', '')}`",
        )
        for kernel in kernels[:SHOWN]
    ]
    return (
        f"## Kernels of a step of {values['model']}, {values['precision']}\n\n"
        f"{count:,.0f} kernels a step, {total:,.0f} µs of kernels a step.\n\n"
        f"{table(('part', 'kernels', 'µs', 'of all'), rows)}\n"
        f"{table(('count', 'µs each', 'µs', f'the {len(longest)} longest kernels'), longest)}"
    )


def _memory(found: list[dict]) -> str:
    rows = [
        (
            f"{values['model']}, {values['runs']}",
            moment["moment"],
            *(number(moment[f"{name}_gib"], 2) for name in ("allocated", "reserved", "peak_reserved", "used")),
        )
        for values in found
        for moment in values["moments"]
    ]
    head = ("model, runs", "when", "tensors, GiB", "reserved, GiB", "peak reserved, GiB", "used on the GPU, GiB")
    text = """Reserved: by PyTorch; the peak counts from the previous row. Used on the GPU: by all processes. The runs
        of a pack are evaluated at the same time."""
    return f"## Memory\n\n{table(head, rows)}\n{paragraph(text)}"


def _launches(ways: dict[str, dict]) -> str:
    digests = {way: values["digests"] for way, values in ways.items()}
    names = list(dict.fromkeys(run for found in digests.values() for run in found))
    rows = [(run, *(_digest(digests.get(way, {}).get(run)) for way in WAYS)) for run in names]
    text = "SHA-256 of the runs' final weights, first 12 digits."
    if "packed" in ways:
        text += f" Packed: a run had at most {ways['packed']['packed_with']} neighbours."
    if "interrupted" in ways:
        text += f" Interrupted: {ways['interrupted']['interruptions']} by SIGTERM, then resumed by a new process."
    return f"## One launch in several ways\n\n{table(('run', *WAYS.values()), rows)}\n{paragraph(text)}"


def _digest(digest: str | None) -> str:
    return number(None) if digest is None else f"`{digest[:12]}`"


def _explanation(results: dict) -> str:
    about, setting = results["about"], results["setting"]
    text = "Each stage runs in its own process, with a time limit."
    if "capability" in about:
        text += f""" The GPU: compute capability {about["capability"]}, {about["memory_gib"]} GiB,
            {about["multiprocessors"]} multiprocessors."""
    if _done(results, "rates-"):
        text += f""" Throughput: images per second at batch {BATCH}, median (lowest to highest) of {setting["rounds"]}
            rounds of about {setting["seconds"]:g} s; the page of `make bench` explains the columns."""
    text += f" {versions_sentence(about['versions'], about['code'])} Regenerate with `make gpu-check`."
    return paragraph(text)
