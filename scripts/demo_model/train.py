"""Trains the demo model: `python -m scripts.demo_model.train --out .state/demo_model`.

Writes tokenizer.json, architecture.json, weights.npz (rounded to float16) and log.jsonl into the
output folder; export.py makes the shipped files from them.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from scripts.demo_model.batches import TOKENS_PER_STEP, batches, encode
from scripts.demo_model.corpus import NUM_DOCUMENTS, SEED, Corpus
from scripts.demo_model.held_out import items_and_keys
from scripts.demo_model.network import Architecture, LanguageModel
from scripts.demo_model.optimizer import Optimizer, schedule
from scripts.demo_model.tokenizer import train_tokenizer

# One thread has 70 % of the speed of two. While other processes run, two lose far more, as each of
# the many small operations waits for the slower thread. Fixed, as the order of additions depends on
# it.
THREADS = 1
DOCUMENTS_FOR_TOKENIZER = 20_000
STEPS = 4100
STEPS_PER_LINE = 50


def prepare(out: Path, num_documents: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Writes the corpus' tokenizer; returns the iterator of batches."""
    corpus = Corpus(SEED, items_and_keys()[1])
    documents = [corpus.document() for _ in range(num_documents)]
    texts = ("".join(t for t, _ in pieces) for pieces in documents[:DOCUMENTS_FOR_TOKENIZER])
    tokenizer: Tokenizer = train_tokenizer(texts)
    tokenizer.save(str(out / "tokenizer.json"))
    rows = encode(documents, tokenizer)
    num_tokens = sum(len(row.ids) for row in rows)
    num_trained = sum(sum(row.is_trained) for row in rows)
    print(f"{len(rows)} documents, {num_tokens} tokens, {num_trained / num_tokens:.0%} trained")
    return batches(rows, tokenizer, SEED)


def train(
    model: LanguageModel, data: Iterator[tuple[Tensor, Tensor]], steps: int, out: Path
) -> None:
    """Runs the schedule; writes the weights every 500 steps."""
    optimizer, start, total = Optimizer(model), time.perf_counter(), 0.0
    with (out / "log.jsonl").open("w", encoding="utf-8", buffering=1) as log:
        for step in range(steps):
            total += _step(model, optimizer, next(data), schedule(step, steps))
            if (step + 1) % STEPS_PER_LINE == 0:
                elapsed_s = time.perf_counter() - start
                line = _log_line(step + 1, total / STEPS_PER_LINE, elapsed_s)
                print(line, flush=True)
                log.write(line + "\n")
                total = 0.0
            if (step + 1) % 500 == 0:
                save(model, out)
    save(model, out)


def _step(
    model: LanguageModel, optimizer: Optimizer, batch: tuple[Tensor, Tensor], rate: float
) -> float:
    """Forward, backward and update on one batch; the mean loss of its trained tokens (nats)."""
    inputs, targets = batch
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(inputs)
    loss = cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
    loss.backward()
    optimizer.step(rate)
    return loss.item()


def _log_line(step: int, loss: float, elapsed_s: float) -> str:
    tokens_per_s = round(step * TOKENS_PER_STEP / elapsed_s)
    figures = {"step": step, "loss": round(loss, 4), "elapsed_s": round(elapsed_s)}
    return json.dumps({**figures, "tokens_per_s": tokens_per_s})


def save(model: LanguageModel, out: Path) -> None:
    """Writes the weights in float16, which both formats store, so they are rounded once."""
    weights = {
        f"model.{name}": parameter.detach().numpy().astype(np.float16)
        for name, parameter in model.named_parameters()
    }
    temporary = out / "weights.tmp.npz"
    np.savez(temporary, **weights)
    temporary.rename(out / "weights.npz")
    (out / "architecture.json").write_text(json.dumps(model.arch.to_dict(), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and tokenizer")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--documents", type=int, default=NUM_DOCUMENTS, help="default: %(default)s")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = prepare(arguments.out, arguments.documents)
    model = LanguageModel(Architecture())
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(model, data, arguments.steps, arguments.out)


if __name__ == "__main__":
    main()
