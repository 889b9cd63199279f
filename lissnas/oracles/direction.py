"""Direction of a metric: whether more or less of it is better."""

from __future__ import annotations

import re

from lissnas.core.errors import UserError
from lissnas.spaces.base import Space

MAXIMIZE = "maximize"
MINIMIZE = "minimize"
COSTS = {
    *("loss", "losses", "error", "errors", "err", "perplexity", "ppl", "latency", "rmse", "mse", "mae", "mape", "wer"),
    *("cer", "eer", "nll", "bpb", "bpc", "bpd", "fid", "regret", "crossentropy", "entropy", "cost", "costs"),
}
"""Words in names of metrics of which less is better."""
USUAL_COSTS = {
    *("time", "runtime", "duration", "seconds", "sec", "secs", "ms", "us", "hours", "flops", "mflops", "gflops"),
    *("macs", "madds", "params", "parameters", "size", "bytes", "memory", "mem", "ram", "energy", "power", "watts"),
}
"""Words that mean a cost unless the name has one of `GAINS` too: `batch_size_64_accuracy`."""
GAINS = {
    *("accuracy", "acc", "top1", "top5", "auc", "f1", "score", "map", "iou", "miou", "bleu", "psnr", "ssim"),
    *("reward", "precision", "recall", "per"),
}
"""Words of metrics of which more is better."""
NEGATIVE = {"neg", "negative", "minus", "inverse"}
"""Words of a metric whose sign was changed, so that more of it is better."""


def looks_like_cost(metric: str) -> bool:
    """Return whether less of a metric is usually better, by the words in its name."""
    words = {*re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", metric).lower())}
    if words & NEGATIVE:
        return False
    ends = any(word.endswith(("loss", "error", "perplexity", "latency", "entropy")) for word in words)
    return bool(ends or words & COSTS or (words & USUAL_COSTS and not words & GAINS))


def is_minimized(space: Space, metric: str, minimize: bool | None = None) -> bool:
    """Return whether less of `metric` is better: as the space declares, else as `minimize` states, else False.

    Raises UserError if both contradict each other, or if the metric looks like a cost and neither states it.
    """
    if metric == space.metric_name:
        if minimize is not None and minimize == space.maximize:
            declared = MAXIMIZE if space.maximize else MINIMIZE
            other = MINIMIZE if minimize else MAXIMIZE
            raise UserError(
                f"--{other}: space {space.name} declares that {metric or 'its metric'} is to be {declared}d; "
                "leave the option out, or change the direction in its space.yaml"
            )
        return not space.maximize
    if minimize is None and looks_like_cost(metric):
        raise UserError(
            f"metric {metric!r}: usually less of it is better, but nothing states it. Add --minimize (in Python "
            "minimize=True), or --maximize (minimize=False) if more is better"
        )
    return bool(minimize)


def stated(metric: str, minimize: bool) -> dict[str, str]:
    """Return the entries of `metrics.json` that state a metric and its direction."""
    return {"metric": metric, "direction": MINIMIZE if minimize else MAXIMIZE}


def metric_label(metric: str, minimize: bool) -> str:
    """Return the name of a metric for axes and sentences, with its direction if less is better."""
    return f"{metric} (less is better)" if minimize else metric
