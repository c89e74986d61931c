"""From which tokens, and up to which block, a model still takes whom a question is about: where ROCR can act at all.

    python -m benchmarks.subject_trace --model PATH --data DIR --benchmark ort/1 --other "Somebody Else"

A question about the target is run with the hidden states of the target's name, after one block, replaced by those of
another name in the same question: at the name's last token, where ROCR writes, and at all of its tokens. If the gold
answer keeps its probability (per token, geometric mean), then what the block's later readers need has left the name
already, and no edit there can make the model forget. After Meng et al., 2022, https://arxiv.org/abs/2202.05262.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bench import data
from bench.data.forms import ask
from bench.data.tokenize import Encoder
from bench.data.types import Tokens
from bench.errors import LetheError
from bench.models import Loaded, choose_device, choose_dtype, decoder_blocks, load_model


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="checkpoint folder or hub id")
    p.add_argument("--data", type=Path, required=True, help="folder with rwku/Target")
    p.add_argument("--benchmark", default="ort/1", help="one target (default: %(default)s)")
    p.add_argument("--other", required=True, help="a name that the model knows as well")
    p.add_argument("--device", default="auto")
    options = p.parse_args()
    device = choose_device(options.device)
    loaded = load_model(options.model, device=device, dtype=choose_dtype("auto", device))
    encoder = Encoder(loaded.tokenizer)
    benchmark = data.load(options.benchmark, options.data)
    (subject,) = benchmark.subjects
    probes = [q for q in benchmark.probes if (q.part, q.form) == ("forget", "qa") and subject in q.query]
    pairs = []
    for asked in map(ask, probes):
        own = encoder.cued(asked.user, asked.cue, asked.target)
        other = encoder.cued(asked.user.replace(subject, options.other), asked.cue, asked.target)
        places = [span(encoder, tokens.input_ids, name) for tokens, name in ((own, subject), (other, options.other))]
        pairs.append((own, other, *places))
    table = Table("after block", "last token", "all tokens", title=f"{len(pairs)} questions about {subject}")
    before = sum(probability(loaded, own) for own, *_ in pairs) / len(pairs)
    for layer in range(len(decoder_blocks(loaded.model))):
        found = []
        for whole in (False, True):
            values = []
            for own, other, (start, end), (begin, stop) in pairs:
                there = hidden(loaded, other, layer)
                at = range(start, end) if whole else range(end - 1, end)
                states = [there[min(begin + place - start, stop - 1)] if whole else there[stop - 1] for place in at]
                values.append(probability(loaded, own, layer, at, states))
            found.append(sum(values) / len(values))
        table.add_row(str(layer), *(f"{value:.4f}" for value in found))
    Console().print(table, f"untouched: {before:.4f}")


def span(encoder: Encoder, ids: Sequence[int], name: str) -> tuple[int, int]:
    """The first and one past the last token of a name."""
    for start in range(len(ids)):
        for end in range(start + 1, min(start + 40, len(ids)) + 1):
            if str(encoder.tokenizer.decode(ids[start:end])).strip() == name:
                return start, end
    raise LetheError(f"{name!r} is not a run of whole tokens in the question; trace another target")


@torch.no_grad()
def hidden(loaded: Loaded, tokens: Tokens, layer: int) -> Tensor:
    """(T, D) output of a block."""
    ids = torch.tensor([tokens.input_ids], device=loaded.device)
    return loaded.model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0]


@torch.no_grad()
def probability(
    loaded: Loaded, tokens: Tokens, layer: int = 0, places: Sequence[int] = (), states: Sequence[Tensor] = ()
) -> float:
    """Of the gold answer, with the output of a block replaced at some places."""

    def replaced(module: object, inputs: object, output: Tensor | tuple) -> Tensor | tuple:
        first = (output[0] if isinstance(output, tuple) else output).clone()
        for place, state in zip(places, states, strict=True):
            first[0, place] = state
        return (first, *output[1:]) if isinstance(output, tuple) else first

    hook = decoder_blocks(loaded.model)[layer].register_forward_hook(replaced)
    try:
        logits = loaded.model(input_ids=torch.tensor([tokens.input_ids], device=loaded.device)).logits[0]
    finally:
        hook.remove()
    logp = logits.float().log_softmax(-1)
    scored = [float(logp[tokens.label_start - 1 + n, i]) for n, i in enumerate(tokens.labels)]
    return math.exp(math.fsum(scored) / len(scored))


if __name__ == "__main__":
    main()
